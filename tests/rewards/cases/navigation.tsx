//// prompt
I need a navigation bar for the cinema "Lumen" with links to Programme, Tickets and Contact; Tickets is the current page.
//// reference
const LINKS = ["Programme", "Tickets", "Contact"];

export default function NavBar({ current = "Tickets" }) {
  return (
    <nav className="nav-bar" aria-label="Main">
      <strong>Lumen</strong>
      <ul>
        {LINKS.map((link) => (
          <li key={link}>
            <a href={`/${link.toLowerCase()}`} aria-current={link === current ? "page" : undefined}>
              {link}
            </a>
          </li>
        ))}
      </ul>
    </nav>
  );
}
//// right
import { Fragment } from "react";

function Item({ to, here, children }: any) {
  return (
    <li>
      <a href={to} {...(here ? { "aria-current": "page" } : {})}>{children}</a>
    </li>
  );
}

const Nav = () => (
  <Fragment>
    <nav className="nav-bar" aria-label="Main">
      <strong>Lumen</strong>
      <ul>
        <Item to="/programme">Programme</Item>
        <Item to="/tickets" here>Tickets</Item>
        <Item to="/contact">Contact</Item>
      </ul>
    </nav>
  </Fragment>
);

export { Nav };
//// different
export default function Header() {
  return (
    <header className="site-header">
      <a className="logo" href="/">Lumen</a>
      <nav>
        <a href="/programme">Programme</a>
        <a href="/tickets" className="active" aria-current="page">Tickets</a>
        <a href="/contact">Contact</a>
      </nav>
    </header>
  );
}
