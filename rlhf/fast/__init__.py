"""What makes it fast and not clear: nothing here changes a result, or imports anything of the package but maths."""
