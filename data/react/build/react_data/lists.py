"""Short families: lists, terms and a way around them."""

from react_data import words
from react_data.family import Maker, Pair, array, family, pascal

GROUPS = {
    "tasks": words.TASKS,
    "dishes": words.DISHES,
    "songs": words.SONGS,
    "cities": words.CITIES,
    "animals": words.ANIMALS,
    "plants": words.PLANTS,
}


@family("list", short=True)
def fixed_list(m: Maker) -> Pair:
    group = m.pick(tuple(GROUPS))
    items = m.some(GROUPS[group], m.pick((2, 3, 3, 4)))
    tag = m.pick(("ul", "ul", "ol"))
    rows = "".join(f"<li>{item}</li>" for item in items)
    marked = "".join(f"<li><span .dot! />{item}</li>" for item in items)
    ticked = "".join(f'<li><input type="checkbox" />{item}</li>' for item in items)
    view = m.view(
        (f"<{tag} .root>{marked}</{tag}>", f"<div .root><h2>$title</h2><hr /><{tag}>{rows}</{tag}></div>",
         f"<{tag} .root>{ticked}</{tag}>"),
        (f"<{tag} .root>{rows}</{tag}>", f"<section .root><h2>$title</h2><{tag}>{rows}</{tag}></section>",
         f"<nav .root><{tag}>{rows}</{tag}></nav>"),
    )  # fmt: skip
    code = m.write(pascal(m.pick((group, "my " + group)), m.pick(("list", ""))), view, title=group.title())
    noun = "numbered list" if tag == "ol" else m.pick(("list", "plain list"))
    return m.pair(noun, f"of {group}: {', '.join(items)}", code, *items)


@family("keyed_list", short=True)
def keyed_list(m: Maker) -> Pair:
    group = m.pick(tuple(GROUPS))
    items = m.some(GROUPS[group], m.pick((2, 3)))
    prop = m.pick((group, group, "items"))
    one = m.pick((group.rstrip("s") if group not in ("cities", "dishes") else group[:4].rstrip("i"), "item"))
    view = m.view(
        ("<ul .root>{$prop.map(($one) => <li key={$one}><span .dot! />{$one}</li>)}</ul>",
         "<section .root><h2>$title</h2><hr />{$prop.map(($one) => <p key={$one}>{$one}</p>)}</section>",
         '<ul .root>{$prop.map(($one) => <li key={$one}><input type="checkbox" />{$one}</li>)}</ul>'),
        ("<ul .root>{$prop.map(($one) => <li key={$one}>{$one}</li>)}</ul>",
         "<ol .root>{$prop.map(($one, i) => <li key={i}>{$one}</li>)}</ol>",
         "<div .root><h2>$title</h2>{$prop.map(($one) => <p key={$one}>{$one}</p>)}</div>"),
    )  # fmt: skip
    code = m.write(
        pascal(group, m.pick(("list", "view", ""))),
        view,
        "$prop: string[] = $items",
        prop=prop,
        one=one,
        items=array(items),
        title=group.title(),
    )
    noun = m.pick(("list with keys", "keyed list", "mapped list"))
    said = m.pick((f"over the {prop} prop", f"from the prop {prop}"))
    return m.pair(noun, f"{said}, by default {' and '.join(items)}", code, prop, *items)


@family("definition_list", short=True)
def definition_list(m: Maker) -> Pair:
    pairs = m.pick((
        tuple((name, role) for name, role in zip(m.some(words.PEOPLE, 2), m.some(words.ROLES, 2), strict=True)),
        tuple((name, f"€{price}") for name, price in m.some(words.PRODUCTS, 2)),
        tuple(m.some(words.STATS, 2)),
    ))  # fmt: skip
    rule = m.pick(("<hr />", "<br />"))
    rows = [f"<dt>{term}</dt><dd>{text}</dd>" for term, text in pairs]
    ruled = [f"<p><b>{term}</b><br />{text}</p>" for term, text in pairs]
    icons = [f"<dt><span .dot! />{term}</dt><dd>{text}</dd>" for term, text in pairs]
    view = m.view(
        (f"<dl .root>{''.join(icons)}</dl>", f"<div .root>{''.join(ruled)}</div>",
         f"<section .root><dl>{''.join(rows)}</dl>{rule}</section>"),
        (f"<dl .root>{''.join(rows)}</dl>",
         "<dl .root>" + "".join(f"<div .row>{row}</div>" for row in rows) + "</dl>",
         f"<section .root><h2>$title</h2><dl>{''.join(rows)}</dl></section>"),
    )  # fmt: skip
    title = m.pick(("Facts", "Details", "At a glance"))
    code = m.write(pascal(m.pick((pairs[0][0], "", "key")), m.pick(("facts", "details", "terms"))), view, title=title)
    said = " and ".join(f"{term} ({text})" for term, text in pairs)
    return m.pair("definition list", f"for {said}", code, *(word for pair in pairs for word in pair))


@family("skip_link", short=True)
def skip_link(m: Maker) -> Pair:
    target = m.pick(
        (
            "main",
            "content",
            "results",
            "search",
            "menu",
            "footer",
            "news",
            "prices",
            "map",
            "form",
            "article",
            "comments",
            "photos",
            "calendar",
        )
    )
    topic = m.pick((*words.TITLES, *words.TOPICS))
    text = m.pick((f"Skip to {target}", f"Jump to {target}", f"Go to the {target}"))
    holder = m.pick(("main", "section", "div")) if target != "main" else "main"
    inside = f'<{holder} id="$target"><h1>$topic</h1></{holder}>'
    view = m.view(
        (f'<><a .root href="#$target">{{text}}</a><hr />{inside}</>',
         f'<div .page><a .root href="#$target"><span .arrow! />{{text}}</a>{inside}</div>',
         f'<><a .root href="#$target">{{text}}</a><{holder} id="$target" aria-label="$topic" /></>'),
        (f'<section><a .root href="#$target">{{text}}</a>{inside}</section>',
         f'<div .page><a .root href="#$target">{{text}}</a>{inside}</div>',
         f'<div .page><nav><a .root href="#$target">{{text}}</a></nav>{inside}</div>'),
    )  # fmt: skip
    code = m.write(
        pascal(m.pick(("skip link", f"skip to {target}", f"{topic} page"))),
        view,
        'text: string = "$text"',
        text=text,
        target=target,
        topic=topic,
    )
    return m.pair("skip link", f'saying "{text}" above "{topic}"', code, target)
