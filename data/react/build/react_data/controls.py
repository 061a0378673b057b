"""Short families: things to press."""

from react_data import words
from react_data.family import Maker, Pair, family, pascal, slug


@family("button", short=True)
def button(m: Maker) -> Pair:
    label = m.pick(words.ACTIONS)
    wish = m.pick(("plain", "disabled", "submit", "coloured", "handler"))
    colour = m.pick(words.COLOURS)
    attributes = {
        "plain": 'type="button"',
        "disabled": 'type="button" disabled={disabled}',
        "submit": 'type="submit"',
        "coloured": 'type="button" style={{ background: color }}',
        "handler": "onClick={onClick}",
    }[wish]
    props = 'label: string = "$label"' + {
        "disabled": "; disabled: boolean = true",
        "coloured": '; color: string = "$colour"',
        "handler": "; onClick: () => void = () => {}",
    }.get(wish, "")
    view = m.view(
        (f"<button .root {attributes}><span .icon! />{{label}}</button>",
         f"<button .root {attributes}><i .dot! aria-hidden=\"true\" />{{label}}</button>",
         f"<div .box><button .root {attributes}>{{label}}</button><hr /></div>"),
        (f"<button .root {attributes}>{{label}}</button>",
         f"<button .root {attributes}><strong>{{label}}</strong></button>",
         f"<p .row><button .root {attributes}>{{label}}</button></p>"),
    )  # fmt: skip
    name = pascal(m.pick((label, label, "Action", "Main")), "button")
    code = m.write(name, view, props, label=label, colour=colour)
    said = m.pick((f'labelled "{label}"', f'that says "{label}"', f'with the text "{label}"'))
    noun = {"plain": "button", "disabled": "disabled button", "submit": "submit button"}.get(wish, "button")
    end = {"coloured": f" in {colour}", "handler": " and an onClick prop"}.get(wish, "")
    return m.pair(noun, said + end, code, *([colour] if wish == "coloured" else []))


@family("icon_button", short=True)
def icon_button(m: Maker) -> Pair:
    label, glyph = m.pick(words.ICONS)
    round_one = m.chance(0.4)
    shape = " style={{ borderRadius: 999 }}" if round_one else ""
    view = m.view(
        (
            f'<button .root aria-label="$label"{shape}><svg width="{{size}}" height="{{size}}">'
            '<circle cx="8" cy="8" r="6" /></svg></button>',
            f'<button .root title="$label"{shape}><img src="/icons/$slug.svg" alt="$label" width={{size}} /></button>',
            f'<button .root aria-label={{label}}{shape}><i className="icon-$slug" /></button>',
        ),
        (
            f'<button .root aria-label={{label}}{shape}><span aria-hidden="true">$glyph</span></button>',
            f'<button .root title={{label}} type="button"{shape}>$glyph</button>',
            f'<button .root aria-label="$label"{shape}><span .icon!>{{glyph}}</span></button>',
        ),
    ).replace('"{size}"', "{size}")
    props = 'label: string = "$label"'
    if "{glyph}" in view:
        props = 'glyph: string = "$glyph"'
    elif "{size}" in view:
        props = f"size: number = {m.pick((16, 20, 24, 32))}"
    name = pascal(label, m.pick(("icon", "button", "icon button")))
    code = m.write(name, view, props, label=label, slug=slug(label), glyph=glyph)
    noun = "round icon button" if round_one else "icon button"
    return m.pair(noun, m.pick((f'for "{label}"', f'with the label "{label}"', f'named "{label}"')), code)


@family("toggle", short=True)
def toggle(m: Maker) -> Pair:
    label = m.pick(words.SETTINGS)
    start = m.chance(0.5)
    state = m.pick((("on", "setOn"), ("enabled", "setEnabled"), ("active", "setActive")))
    view = m.view(
        ('<label .root><input type="checkbox" checked={$on} onChange={() => $set(!$on)} />$label</label>',
         '<button .root role="switch" aria-checked={$on} onClick={() => $set(!$on)}><span .knob! />$label</button>',
         '<label .root>$label<input type="checkbox" checked={$on} onChange={(e) => $set(e.target.checked)} />'
         "</label>"),
        ('<button .root aria-pressed={$on} onClick={() => $set(!$on)}>$label: {$on ? "on" : "off"}</button>',
         '<button .root role="switch" aria-checked={$on} onClick={() => $set(!$on)}>$label</button>',
         '<p .root>$label <button onClick={() => $set(!$on)}>{$on ? "On" : "Off"}</button></p>'),
    )  # fmt: skip
    first = str(start).lower()
    name = pascal(label, m.pick(("toggle", "switch")))
    code = m.write(
        name, view, body="const [$on, $set] = useState($first);", label=label, on=state[0], set=state[1], first=first
    )
    noun = m.pick(("toggle", "switch", "toggle switch"))
    begin = m.pick(("that starts {}", "that is {} at first", "initially {}")).format("on" if start else "off")
    return m.pair(noun, f'for "{label}" {begin}', code, f"useState({first})")


@family("link", short=True)
def link(m: Maker) -> Pair:
    topic = m.pick((*words.TOPICS, *words.TITLES))
    outside = m.chance(0.4)
    path = f"https://example.com/{slug(topic)}" if outside else f"/{slug(topic)}"
    extra = ' target="_blank" rel="noreferrer"' if outside else ""
    view = m.view(
        (f"<a .root href={{href}}{extra}><span .arrow! />$topic</a>",
         f'<a .root href={{href}}{extra}><img src="/link.svg" alt="" />$topic</a>',
         f"<p .root>More:<br /><a href={{href}}{extra}>$topic</a></p>"),
        (f"<a .root href={{href}}{extra}>$topic</a>",
         f"<p .root>See <a href={{href}}{extra}>$topic</a></p>",
         f"<a .root href={{href}}{extra}>$topic <span>→</span></a>"),
    )  # fmt: skip
    code = m.write(pascal(topic, "link"), view, 'href: string = "$path"', topic=topic, path=path)
    noun = "link that opens a new tab," if outside else "link"
    return m.pair(noun.rstrip(","), m.pick((f'to "{topic}"', f'with the text "{topic}"', f'for "{topic}"')), code)


@family("counter", short=True)
def counter(m: Maker) -> Pair:
    thing = m.pick(
        (
            "apples",
            "guests",
            "laps",
            "points",
            "cups",
            "birds",
            "pages",
            "goals",
            "likes",
            "coins",
            "steps",
            "tickets",
            "eggs",
            "stars",
            "songs",
            "boats",
        )
    )
    start, step = m.pick((0, 0, 1, 5, 10)), m.pick((1, 1, 2, 5, 10))
    down = m.chance(0.35)
    more = f"setCount(count + {step})"
    second = f"<button onClick={{() => setCount(count - {step})}}>-</button>" if down else ""
    view = m.view(
        (f"<div .root><p>{{count}} $thing</p><hr /><button onClick={{() => {more}}}>+</button>{second}</div>",
         f"<div .root><input value={{count}} readOnly /><button onClick={{() => {more}}}>Add $thing</button>"
         f"{second}</div>",
         f"<p .root>$thing: {{count}}<br /><button onClick={{() => {more}}}>+{step}</button>{second}</p>"),
        (f"<div .root><p>{{count}} $thing</p><button onClick={{() => {more}}}>Add</button>{second}</div>",
         f"<button .root onClick={{() => {more}}}>$thing: {{count}}</button>",
         f"<section .root><h2>$thing</h2>{second}<button onClick={{() => {more}}}>{{count}}</button></section>"),
    )  # fmt: skip
    if down and second not in view:
        view = f"<div .root>{view.replace(' .root', '', 1)}{second}</div>"
    code = m.write(pascal(thing, "counter"), view, body=f"const [count, setCount] = useState({start});", thing=thing)
    noun = "counter with plus and minus" if down else "counter"
    steps = f" in steps of {step}" if step > 1 else ""
    return m.pair(noun, f"for {thing} that starts at {start}{steps}", code, thing, f"useState({start})", str(step))


@family("rating", short=True)
def rating(m: Maker) -> Pair:
    top = m.pick((3, 4, 5, 6, 7, 8, 10))
    value = m.rng.randint(1, top - 1)
    thing = m.pick((*words.DISHES, *words.SONGS, *words.CITIES))
    stars = "Array.from({ length: $top }, (_, i) => "
    view = m.view(
        (f"<div .root title=\"$thing\">{{{stars}"
         '<span key={i} className={i < value ? "full" : "empty"} />)}</div>',
         '<label .root>$thing<input type="range" min="0" max="$top" defaultValue={value} /></label>',
         "<p .root>$thing<br />{value} of $top stars</p>"),
        (f'<div .root aria-label="$thing">{{{stars}<span key={{i}}>{{i < value ? "★" : "☆"}}</span>)}}</div>',
         '<p .root>$thing {"★".repeat(value)}{"☆".repeat($top - value)}</p>',
         '<span .root role="img" aria-label={`$thing: $${value} of $top`}>{"★".repeat(value)}</span>'),
    )  # fmt: skip
    code = m.write(
        pascal(m.pick((thing, "star")), "rating"), view, "value: number = $value", thing=thing, top=top, value=value
    )
    return m.pair("star rating", f"of {value} out of {top} for {thing}", code, f"value = {value}", thing)
