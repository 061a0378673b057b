"""Longer families: picking one or several of some options."""

from react_data import words
from react_data.family import Maker, Pair, array, camel, family, pascal


@family("radio_group")
def radio_group(m: Maker) -> Pair:
    topic, options = m.pick((
        ("Size", ("Small", "Medium", "Large", "Extra large")), ("Seat", ("Window", "Aisle", "Middle")),
        ("Plan", ("Free", "Team", "Studio")), ("Milk", ("Oat", "Cow", "Soy", "Almond")),
        ("Ticket", ("Single", "Return", "Day pass")), ("Pace", ("Slow", "Steady", "Fast")),
        ("City", words.CITIES[:6]), ("Plant", words.PLANTS[:6]), ("Colour", words.COLOURS[:5]),
    ))  # fmt: skip
    chosen = m.some(options, m.pick((2, 3)))
    key, start = camel(topic), m.pick(chosen)
    control = (
        '<input type="radio" name="$key" value={option} checked={$key === option} onChange={() => set$cap(option)} />'
    )
    view = m.view(
        (f"<fieldset .root><legend>$topic</legend>{{options.map((option) => "
         f"<label key={{option}}>{control} {{option}}"
         "</label>)}</fieldset>",
         f"<div .root role=\"radiogroup\" aria-label=\"$topic\">{{options.map((option) => "
         f"<label key={{option}} .option>"
         f"{control}<span>{{option}}</span></label>)}}<p>Chosen: {{$key}}</p></div>"),
        ('<div .root role="radiogroup" aria-label="$topic">{options.map((option) => '
         '<button key={option} role="radio" '
         "aria-checked={$key === option} onClick={() => set$cap(option)}>{option}</button>)}</div>",
         '<ul .root role="radiogroup" aria-label="$topic">{options.map((option) => <li key={option} role="radio" '
         "aria-checked={$key === option} tabIndex={0} onClick={() => set$cap(option)}>{option}</li>)}</ul>"),
    )  # fmt: skip
    body = f'const [{key}, set{pascal(key)}] = useState("{start}");'
    code = m.write(
        pascal(topic, m.pick(("picker", "group", "choice", "radio"))),
        view,
        "options: string[] = $options",
        body,
        options=array(chosen),
        topic=topic,
        key=key,
        cap=pascal(key),
    )
    noun = m.pick(("radio group", "set of radio buttons"))
    return m.pair(noun, f'for "{topic}" with {", ".join(chosen)}; {start} is chosen', code, *chosen)


CHECKLISTS = (
    ("Toppings", ("Olives", "Capers", "Onion", "Corn", "Basil")),
    ("Days", ("Mon", "Tue", "Wed", "Thu")),
    ("Extras", ("Breakfast", "Parking", "Bike", "Late checkout")),
    ("Alerts", words.TOPICS[:8]),
    ("Animals", words.ANIMALS[:7]),
    ("Trips", words.CITIES[:8]),
)
TOGGLES = (
    "const [picked, setPicked] = useState<string[]>([]);\n\nconst toggle = (option: string) =>\n"
    "  setPicked((old) => (old.includes(option) ? old.filter((o) => o !== option) : [...old, option]));",
    "const [picked, setPicked] = useState<string[]>([]);\n\nfunction toggle(option: string) {\n"
    "  const rest = picked.filter((other) => other !== option);\n"
    "  setPicked(rest.length < picked.length ? rest : [...rest, option]);\n}",
)


@family("checkbox_group")
def checkbox_group(m: Maker) -> Pair:
    title, pool = m.pick(CHECKLISTS)
    options = m.some(pool, m.pick((2, 3)))
    view = m.pick(
        (
            "<fieldset .root><legend>$title</legend>{options.map((option) => <label key={option}>"
            '<input type="checkbox" checked={picked.includes(option)} onChange={() => toggle(option)} /> {option}'
            "</label>)}</fieldset>",
            "<section .root><h3>$title ({picked.length})</h3><ul>{options.map((option) => <li key={option}><label>"
            '<input type="checkbox" checked={picked.includes(option)} onChange={() => toggle(option)} /> {option}'
            "</label>"
            "</li>)}</ul></section>",
            '<div .root role="group" aria-label="$title">{options.map((option) => <button key={option} '
            "aria-pressed={picked.includes(option)} onClick={() => toggle(option)}>{option}</button>)}"
            '<p>{picked.join(", ") || "Nothing picked"}</p></div>',
        )
    )
    body = m.pick(TOGGLES)
    code = m.write(
        pascal(title, m.pick(("picker", "checks", "group", "options"))),
        view,
        "options: string[] = $options",
        body,
        title=title,
        options=array(options),
    )
    noun = m.pick(("checkbox group", "multiple choice"))
    return m.pair(noun, f'for "{title}" with {", ".join(options)}', code, *options)


SELECT_NOUNS = {"native": "dropdown with state", "plain": "select field", "menu": "custom dropdown menu"}
LISTS = (
    ("City", words.CITIES),
    ("Plant", words.PLANTS),
    ("Dish", words.DISHES),
    ("Song", words.SONGS),
    ("Animal", words.ANIMALS),
    ("Colour", words.COLOURS),
    ("Role", words.ROLES),
)


@family("select")
def select(m: Maker) -> Pair:
    label, pool = m.pick(LISTS)
    options = m.some(pool, m.pick((2, 3)))
    key, style = camel(label), m.pick(("native", "native", "menu", "plain"))
    each = "{options.map((option) => <option key={option}>{option}</option>)}"
    state = f'const [{key}, set{label}] = useState("{options[0]}");'
    extra = m.view(
        ("<hr /><p>You chose {$key}.</p>", '<input type="hidden" name="$key" value={$key} />'),
        ("<p>You chose {$key}.</p>", ""),
    )
    if style == "native":
        view = (
            f"<div .root><label>$label <select value={{$key}} onChange={{(e) => set$label(e.target.value)}}>{each}"
            f"</select></label>{extra}</div>"
        )
    elif style == "plain":
        view = f'<label .root>$label<select name="$key" defaultValue="{options[0]}">{each}</select></label>'
        state = ""
    else:
        view = (
            "<div .root><button aria-expanded={open} onClick={() => setOpen(!open)}>{$key} ▾</button>"
            '{open && <ul role="listbox" aria-label="$label">{options.map((option) => <li key={option} role="option" '
            "aria-selected={option === $key} onClick={() => { set$label(option); setOpen(false); }}>{option}</li>)}"
            "</ul>}"
            f"{extra}</div>"
        )
        state += "\nconst [open, setOpen] = useState(false);"
    code = m.write(
        pascal(label, m.pick(("select", "picker", "dropdown", "menu"))),
        view,
        "options: string[] = $options",
        state,
        label=label,
        key=key,
        options=array(options),
    )
    noun = SELECT_NOUNS[style]
    return m.pair(noun, f'for "{label}" with {", ".join(options)}', code, *options)
