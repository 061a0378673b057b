"""Short families: lists, terms and small fields."""

from react_data import words
from react_data.family import Maker, Pair, array, camel, family, pascal, slug

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


@family("text_input", short=True)
def text_input(m: Maker) -> Pair:
    label, kind = m.pick(words.FIELDS)
    state = m.chance(0.4)
    bound = "value={value} onChange={(e) => setValue(e.target.value)}" if state else 'name="$name"'
    view = m.view(
        (f'<label .root>{{label}}<input type="$kind" {bound} /></label>',
         f'<p .root><label htmlFor="$name">{{label}}</label><input id="$name" type="$kind" {bound} /></p>',
         f'<input .root type="$kind" placeholder={{label}} {bound} />'),
        (f"<label .root>{{label}}<textarea rows={{2}} {bound}></textarea></label>",
         f"<div .root><span>{{label}}</span><textarea aria-label={{label}} {bound}></textarea></div>",
         f'<label .root><b>{{label}}</b><textarea .field {bound}></textarea></label>'),
    )  # fmt: skip
    body = 'const [value, setValue] = useState("");' if state else ""
    code = m.write(
        pascal(label, m.pick(("input", "field"))),
        view,
        'label: string = "$label"',
        body,
        label=label,
        name=camel(label),
        kind=kind,
    )
    noun = m.pick(("text field", "input field", "field")) if not state else "controlled field"
    return m.pair(noun, m.pick((f'for "{label}"', f'labelled "{label}"', f'with the label "{label}"')), code)


@family("search_box", short=True)
def search_box(m: Maker) -> Pair:
    topic = m.pick(words.TOPICS).lower()
    button = m.chance(0.5)
    end = "<button>Go</button>" if button else ""
    view = m.view(
        (f'<form .root role="search"><input type="search" placeholder={{hint}} />{end}</form>',
         f'<label .root>{{hint}}<input type="search" name="q" />{end}</label>',
         f'<div .root role="search"><input .field aria-label={{hint}} />{end}</div>'),
        (f'<form .root role="search"><textarea rows={{1}} placeholder={{hint}}></textarea>{end}</form>',
         f'<div .root role="search"><b>$topic</b><textarea rows={{1}} aria-label={{hint}}></textarea>{end}</div>',
         f'<form .root role="search"><label>{{hint}}<textarea name="q"></textarea></label>{end}</form>'),
    )  # fmt: skip
    hint = m.pick((f"Search {topic}", f"Find {topic}"))
    code = m.write(pascal(topic, "search"), view, 'hint: string = "$hint"', topic=topic, hint=hint)
    noun = "search box with a button" if button else m.pick(("search box", "search field"))
    return m.pair(noun, m.pick((f'with the hint "{hint}"', f'saying "{hint}"')), code, *(["button"] if button else []))


@family("slider", short=True)
def slider(m: Maker) -> Pair:
    label = m.pick(
        (
            "Volume",
            "Brightness",
            "Zoom",
            "Speed",
            "Heat",
            "Price",
            "Distance",
            "Bass",
            "Contrast",
            "Rooms",
            "Guests",
            "Spice",
            "Tempo",
            "Width",
            "Depth",
        )
    )
    top, step = m.pick((10, 20, 50, 100, 200)), m.pick((1, 1, 2, 5, 10))
    start = m.rng.randrange(0, top, step)
    view = m.view(
        ('<label .root>$label: {value}<input type="range" max={$top} step={$step} value={value} '
         "onChange={(e) => setValue(Number(e.target.value))} /></label>",
         '<input .root type="range" aria-label="$label" max={$top} step={$step} value={value} '
         "onChange={(e) => setValue(Number(e.target.value))} />"),
        ("<div .root><span>$label: {value} / $top</span>"
         "<button onClick={() => setValue(Math.min($top, value + $step))}>More</button></div>",
         '<button .root role="slider" aria-label="$label" aria-valuenow={value} '
         "onClick={() => setValue((value + $step) % $top)}>{value}</button>"),
    )  # fmt: skip
    code = m.write(
        pascal(label, m.pick(("slider", "range"))),
        view,
        body=f"const [value, setValue] = useState({start});",
        label=label,
        top=top,
        step=step,
    )
    end = f" in steps of {step}" if step > 1 else ""
    return m.pair("slider", f'for "{label}" up to {top}, starting at {start}{end}', code, str(top), str(start))


@family("checkbox", short=True)
def checkbox(m: Maker) -> Pair:
    label = m.pick((*words.SETTINGS, *words.TASKS, "I agree", "Remember me", "Gift wrap", "Only in stock"))
    checked = m.chance(0.5)
    first = str(checked).lower()
    flip = "setChecked(!checked)"
    view = m.view(
        (f'<label .root><input type="checkbox" checked={{checked}} onChange={{() => {flip}}} />$label</label>',
         '<p .root><input id="$slug" type="checkbox" defaultChecked={checked} /><label htmlFor="$slug">$label'
         "</label></p>",
         '<label .root>$label<input type="checkbox" name="$slug" defaultChecked={checked} /></label>'),
        (f'<button .root role="checkbox" aria-checked={{checked}} onClick={{() => {flip}}}>$label</button>',
         f'<span .root role="checkbox" aria-checked={{checked}} onClick={{() => {flip}}}>'
         '{checked ? "☑" : "☐"} $label</span>',
         '<p .root>{checked ? "☑" : "☐"} $label</p>'),
    )  # fmt: skip
    stateful = "setChecked" in view
    code = m.write(
        pascal(label, m.pick(("checkbox", "check", "box"))),
        view,
        "" if stateful else f"checked: boolean = {first}",
        f"const [checked, setChecked] = useState({first});" if stateful else "",
        label=label,
        slug=slug(label),
    )
    noun = "checked checkbox" if checked else m.pick(("checkbox", "unchecked checkbox"))
    return m.pair(noun, m.pick((f'for "{label}"', f'labelled "{label}"')), code, first)


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
