"""The vocabulary of the data set: small worlds of names, things and sentences."""

PLACES = (
    "bakery site", "travel app", "music app", "recipe blog", "city library", "bike shop", "school portal",
    "garden journal", "pet clinic", "film club", "chess club", "museum page", "news site", "fitness app",
    "weather app", "book store", "coffee bar", "hiking guide", "photo studio", "space camp", "repair cafe",
    "farm shop", "language course", "job board", "ferry line",
)  # fmt: skip
ACTIONS = (
    "Save", "Delete", "Send", "Buy now", "Add to cart", "Sign up", "Log out", "Try again", "Download", "Print",
    "Share", "Follow", "Reply", "Publish", "Archive", "Book a seat", "Start", "Stop", "Join", "Upload", "Cancel",
    "Continue", "Subscribe", "Check out", "Find a table", "Play", "Pause", "Export", "Invite", "Confirm", "Refresh",
    "Water plants", "Call a taxi", "Rent a bike", "Track order", "Apply", "Edit", "Undo", "Mark as read", "Vote",
)  # fmt: skip
PEOPLE = (
    "Ada Moreno", "Ben Okafor", "Clara Lind", "Dev Patel", "Ella Novak", "Farid Aziz", "Grace Kim", "Hugo Weiss",
    "Ines Costa", "Jonas Berg", "Kira Sato", "Leo Fontana", "Mina Haddad", "Noah Clarke", "Olga Petrova",
    "Pablo Ruiz", "Quinn Avery", "Rosa Silva", "Samir Khan", "Tara Walsh", "Uma Iyer", "Victor Hale", "Wendy Zhou",
    "Yara Nasser", "Zoe Martin",
)  # fmt: skip
ROLES = (
    "Baker", "Pilot", "Nurse", "Teacher", "Gardener", "Designer", "Carpenter", "Chef", "Geologist", "Illustrator",
    "Librarian", "Photographer", "Translator", "Violinist", "Welder", "Beekeeper", "Coach", "Editor",
)  # fmt: skip
CITIES = (
    "Lisbon", "Oslo", "Kyoto", "Nairobi", "Lima", "Quebec", "Hanoi", "Porto", "Tbilisi", "Cusco", "Bergen",
    "Valencia", "Accra", "Jaipur", "Hobart", "Reykjavik", "Seville", "Ghent", "Busan", "Zagreb",
)  # fmt: skip
PRODUCTS = (
    ("Oak desk", 240), ("Clay mug", 14), ("Wool scarf", 32), ("Trail bag", 89), ("Rain coat", 120),
    ("Desk lamp", 45), ("Olive oil", 18), ("Field notes", 9), ("Tea kettle", 54), ("Linen shirt", 62),
    ("Chess set", 75), ("Bike bell", 12), ("Garden fork", 27), ("Camp stove", 66), ("Wall clock", 38),
    ("Paper kite", 16), ("Herb box", 21), ("Travel pillow", 24), ("Bread knife", 29), ("Star map", 19),
)  # fmt: skip
TASKS = (
    "Water the plants", "Call the dentist", "Buy oat milk", "Fix the bike", "Read chapter two", "Pay the rent",
    "Pack the tent", "Feed the cat", "Book the train", "Clean the oven", "Send the invoice", "Wash the car",
    "Plan the menu", "Return the books", "Sort the photos", "Practise scales",
)  # fmt: skip
DISHES = (
    "Lentil soup", "Apple pie", "Fish tacos", "Mushroom risotto", "Lemon tart", "Bean stew", "Potato salad",
    "Rye bread", "Green curry", "Onion tart", "Plum cake", "Pumpkin soup", "Rice pudding", "Leek pie",
)  # fmt: skip
SONGS = (
    "Paper Moons", "North Harbour", "Slow River", "Copper Sky", "Winter Tram", "Quiet Engines", "Salt and Rain",
    "Blue Ladder", "Small Hours", "Lantern Road", "Glass Garden", "Morning Static",
)  # fmt: skip
ANIMALS = (
    "Otter", "Heron", "Lynx", "Badger", "Puffin", "Newt", "Hare", "Kestrel", "Mole", "Seal", "Gecko", "Ibex",
)  # fmt: skip
PLANTS = ("Basil", "Fern", "Tulip", "Maple", "Thyme", "Ivy", "Poppy", "Cedar", "Mint", "Iris", "Clover", "Sage")
TOPICS = (
    "Orders", "Messages", "Settings", "Billing", "Reports", "Friends", "Photos", "Events", "Lessons", "Tickets",
    "Recipes", "Trips", "Reviews", "Music", "Rooms", "Stock", "Members", "Drafts", "Goals", "Gifts",
)  # fmt: skip
TITLES = (
    "Night market", "Open studio day", "Sourdough basics", "A week in the hills", "New winter menu",
    "City by bike", "The quiet garden", "Meet the team", "Summer reading", "Learn to sail", "First aid course",
    "Jazz on Friday", "Home office tips", "Five fast dinners", "Lake and forest", "Repair, not waste",
    "Stars over town", "Family tickets", "Spring repairs", "Tea from Nepal", "Clay for beginners", "Map your day",
)  # fmt: skip
LINES = (
    "Doors open at eight.", "Bring a friend for free.", "Fresh from the oven.", "Seats are limited.",
    "Made by hand in small batches.", "Ready in ten minutes.", "A calm place to work.", "No account needed.",
    "Free for members.", "Now open on Sundays.", "Ships within two days.", "Good for beginners.",
    "Plan less, see more.", "Every ticket helps.", "Simple tools for busy people.", "Small steps every day.",
)  # fmt: skip
NOTICES = {
    "success": (
        "Your trip is booked.", "Password changed.", "Changes saved.", "Backup complete.", "Coupon applied.",
        "Profile updated.", "Your order is on its way.",
    ),
    "error": (
        "Payment failed.", "Camera not found.", "The file is too large.", "Seat no longer free.", "Wrong password.",
        "The upload was cut off.", "We lost the connection.",
    ),
    "warning": (
        "Low battery.", "Storage is almost full.", "You are offline.", "Your session ends soon.", "Two seats left.",
        "Unsaved changes.", "Heavy rain is coming.",
    ),
    "info": (
        "A new version is ready.", "Invoice sent.", "The shop closes at six.", "Check your email.",
        "Train delayed by ten minutes.", "Two friends joined.", "Doors open at noon.",
    ),
}  # fmt: skip
QUOTES = (
    "Start before you are ready.", "A garden is a slow conversation.", "Make it small, make it kind.",
    "Bread teaches patience.", "Read the map, then look up.", "Measure twice, laugh once.",
    "Practice is a quiet friend.", "Every bug has a story.", "Good tools disappear.", "Rest is part of the work.",
    "The sea keeps no calendar.", "Ask one more question.", "Maps end where walks begin.",
)  # fmt: skip
FIELDS = (
    ("Email", "email"), ("Full name", "text"), ("Phone", "tel"), ("City", "text"), ("Website", "url"),
    ("Age", "number"), ("Nickname", "text"), ("Password", "password"), ("Street", "text"), ("Birthday", "date"),
    ("Postcode", "text"), ("Company", "text"), ("Username", "text"), ("Room number", "number"), ("Song title", "text"),
)  # fmt: skip
STATS = (
    ("Visitors", "1,204"), ("Open tasks", "18"), ("Revenue", "€9,400"), ("New members", "57"), ("Steps", "8,310"),
    ("Books read", "12"), ("Sunny days", "21"), ("Orders today", "36"), ("Goals scored", "4"), ("Uptime", "99.9%"),
    ("Plants watered", "15"), ("Tickets sold", "640"), ("Trees planted", "88"), ("Songs played", "230"),
    ("Km cycled", "412"), ("Downloads", "3,020"), ("Photos", "760"), ("Free seats", "9"),
)  # fmt: skip
SETTINGS = (
    "Dark mode", "Wi-Fi", "Notifications", "Autoplay", "Captions", "Airplane mode", "Sound", "Location",
    "Night shift", "Vibration", "Private profile", "Auto save", "Subtitles", "Newsletter", "Sync", "Grid view",
)  # fmt: skip
STATUSES = (
    "New", "Sold out", "Beta", "Online", "Draft", "Paid", "Overdue", "Vegan", "Offline", "Popular", "Free", "Sale",
    "Urgent", "Done", "In review", "Hot", "Limited", "Pro", "Busy", "Closed", "Organic", "Live", "Archived", "Late",
)  # fmt: skip
ICONS = (
    ("Close", "×"), ("Like", "♥"), ("Menu", "☰"), ("Star", "★"), ("Add", "+"), ("Remove", "−"), ("Back", "←"),
    ("Next", "→"), ("Play", "▶"), ("Edit", "✎"), ("Done", "✓"), ("Settings", "⚙"), ("Mail", "✉"), ("Phone", "☎"),
    ("Up", "↑"), ("Down", "↓"), ("Home", "⌂"), ("Search", "⌕"), ("Stop", "■"), ("Sun", "☀"),
)  # fmt: skip
COLOURS = ("red", "green", "teal", "navy", "orange", "purple", "gray", "crimson", "olive", "tomato", "steelblue")
BRANDS = (
    "Harbour Books", "Fern & Co", "Northline", "Copper Kettle", "Blue Kite", "Luma Studio", "Old Mill", "Tandem",
    "Green Fork", "Skylark", "Pebble", "Juniper Labs", "Red Barn", "Tidewater", "Wren Press", "Atlas Bikes",
)  # fmt: skip
UTILITIES = (
    "p-4", "px-3 py-1", "rounded border", "text-sm", "font-bold", "flex gap-2", "mt-2", "text-lg font-semibold",
    "rounded-full", "shadow p-4", "text-gray-600", "mx-auto",
)  # fmt: skip
