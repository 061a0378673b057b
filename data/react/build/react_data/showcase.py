"""Longer families: people, offers and ways around."""

from react_data import words
from react_data.family import Maker, Pair, array, family, pascal, slug


@family("profile_card")
def profile_card(m: Maker) -> Pair:
    person, role, city = m.pick(words.PEOPLE), m.pick(words.ROLES), m.pick(words.CITIES)
    style, skills = m.pick(("follow", "skills", "contact")), m.some(words.TOPICS, 3)
    face = m.view(('<img .photo src="/people/$slug.jpg" alt={name} />', "<hr />"), ("<b .initial>{name[0]}</b>", ""))
    body, before = "", ""
    if style == "follow":
        body = "const [following, setFollowing] = useState(false);"
        view = (
            f"<article .root>{face}<h2>{{name}}</h2><p>$role in $city</p><button aria-pressed={{following}} "
            'onClick={() => setFollowing(!following)}>{following ? "Following" : "Follow"}</button></article>'
        )
    elif style == "skills":
        before = "const SKILLS = $skills;"
        view = (
            f"<section .root>{face}<header><h2>{{name}}</h2><p>$role, $city</p></header><ul>"
            "{SKILLS.map((skill) => <li key={skill}>{skill}</li>)}</ul></section>"
        )
    else:
        view = (
            f"<div .root>{face}<h3>{{name}}</h3><dl><dt>Role</dt><dd>$role</dd><dt>City</dt><dd>$city</dd></dl>"
            '<a href="mailto:$slug@mail.example">Write to {name.split(" ")[0]}</a></div>'
        )
    code = m.write(
        m.pick(("ProfileCard", "Profile", "PersonCard", pascal(person.split()[0], "card"))),
        view,
        'name: string = "$person"',
        body,
        before,
        person=person,
        role=role,
        city=city,
        slug=slug(person),
        skills=array(skills),
    )
    noun = {
        "follow": "profile card with a follow button",
        "skills": "profile card with a list of skills",
        "contact": "profile card with a mail link",
    }[style]
    return m.pair(noun, f"for {person}, {role.lower()} in {city}", code, person, role, city)


@family("pricing")
def pricing(m: Maker) -> Pair:
    names = m.some(("Free", "Solo", "Team", "Studio", "School", "Family", "Club", "Day", "Season"), m.pick((2, 3)))
    prices = sorted(m.some((0, 4, 5, 8, 9, 12, 15, 19, 24, 29, 39, 49), len(names)))
    plans, style = list(zip(names, prices, strict=True)), m.pick(("cards", "toggle", "table"))
    mark = m.view(("<hr />",), ("",))
    label = m.pick(("Choose", "Select", "Start", "Get it"))
    body = ""
    if style == "cards":
        view = (
            f"<section .root>{{PLANS.map((plan) => <article key={{plan.name}} .plan><h3>{{plan.name}}</h3>{mark}"
            f"<p>€{{plan.price}} a month</p><button>{label} {{plan.name}}</button></article>)}}</section>"
        )
    elif style == "toggle":
        body = "const [yearly, setYearly] = useState(false);"
        view = (
            '<div .root><label><input type="checkbox" checked={yearly} onChange={() => setYearly(!yearly)} /> Pay '
            "yearly"
            "</label>{PLANS.map((plan) => <p key={plan.name}><strong>{plan.name}"
            "</strong> €{yearly ? plan.price * 10 : "
            'plan.price} / {yearly ? "year" : "month"}</p>)}</div>'
        )
    else:
        view = (
            f"<div .root><h2>Plans</h2>{mark}<table><tbody>{{PLANS.map(({{ name, price }}) => <tr key={{name}}>"
            f"<th>{{name}}"
            '</th><td>{price === 0 ? "Free" : "€" + price}</td></tr>)}</tbody></table></div>'
        )
    code = m.write(
        m.pick(("Pricing", "PricingTable", "Plans", pascal(names[0], "pricing"))),
        view,
        body=body,
        before=f"const PLANS = {array(plans, 'name price')};",
    )
    noun = {
        "cards": "pricing section with cards",
        "toggle": "pricing list with a yearly switch",
        "table": "pricing table",
    }
    said = ", ".join(f"{name} ({price} euros)" for name, price in plans)
    return m.pair(noun[style], f"for {said}", code, *names, *map(str, prices))


NAV_NOUNS = {
    "fixed": "navigation bar",
    "mapped": "navigation from an array",
    "menu": "collapsible navigation menu",
    "current": "navigation that marks the current page",
}


@family("nav")
def nav(m: Maker) -> Pair:
    links, brand = m.some(words.TOPICS, m.pick((2, 3, 4))), m.pick(words.BRANDS)
    safe = brand.replace("&", "&amp;")
    style = m.pick(("fixed", "mapped", "menu", "current"))
    logo = m.view(
        ('<img src="/logo.svg" alt="$brand" />', "<strong>$safe</strong><hr />"),
        ('<a href="/">$safe</a>', "<strong>$safe</strong>"),
    )
    before, body = "const LINKS = $links;", ""
    rows = '<li key={link}><a href={"/" + link.toLowerCase()}>{link}</a></li>'
    if style == "fixed":
        before = ""
        anchors = "".join(f'<a href="/{slug(link)}">{link}</a>' for link in links)
        view = f"<nav .root>{logo}{anchors}</nav>"
    elif style == "mapped":
        view = f'<header .root>{logo}<nav aria-label="Main"><ul>{{LINKS.map((link) => {rows})}}</ul></nav></header>'
    elif style == "menu":
        body = "const [open, setOpen] = useState(false);"
        view = (
            f"<nav .root>{logo}<button aria-expanded={{open}} onClick={{() => setOpen(!open)}}>Menu</button>"
            f"{{open && <ul>{{LINKS.map((link) => {rows})}}</ul>}}</nav>"
        )
    else:
        body = f'const [current, setCurrent] = useState("{links[0]}");'
        view = (
            f'<nav .root>{logo}{{LINKS.map((link) => <a key={{link}} href={{"#" + link}} '
            'aria-current={link === current ? "page" : undefined} onClick={() => setCurrent(link)}>{link}</a>)}</nav>'
        )
    code = m.write(
        m.pick(("Navbar", "MainNav", "SiteNav", pascal(brand, "nav"))),
        view,
        body=body,
        before=before,
        links=array(links),
        safe=safe,
        brand=brand,
    )
    noun = NAV_NOUNS[style]
    shown = links if style != "menu" else [*links, "aria-expanded"]
    return m.pair(noun, f"for {brand} with {', '.join(links)}", code, brand, *shown)
