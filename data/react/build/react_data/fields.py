"""Short families: small fields."""

from react_data import words
from react_data.family import Maker, Pair, camel, family, pascal, slug


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
