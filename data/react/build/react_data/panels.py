"""Longer families: parts that open, close and switch."""

from react_data import words
from react_data.family import Maker, Pair, array, family, pascal


@family("tabs")
def tabs(m: Maker) -> Pair:
    names = m.some(words.TOPICS, m.pick((2, 3)))
    texts = m.some(words.LINES, len(names))
    items = array(list(zip(names, texts, strict=True)), "title text")
    mark = m.view(("<hr />",), ("",))
    style = m.pick(("index", "name", "hidden"))
    if style == "index":
        body, before = "const [active, setActive] = useState(0);", "const TABS = $items;"
        view = (
            '<div .root><div role="tablist">{TABS.map((tab, i) => <button key={tab.title} role="tab" '
            "aria-selected={i === active} onClick={() => setActive(i)}>{tab.title}</button>)}</div>"
            f'{mark}<div role="tabpanel">{{TABS[active].text}}</div></div>'
        )
    elif style == "name":
        body = 'const [open, setOpen] = useState("$first");'
        before = ""
        buttons = "".join(f'<button onClick={{() => setOpen("{name}")}}>{name}</button>' for name in names)
        panels = "".join(f'{{open === "{n}" && <p>{t}</p>}}' for n, t in zip(names, texts, strict=True))
        view = f"<section .root><nav>{buttons}</nav>{mark}{panels}</section>"
    else:
        body, before = 'const [current, setCurrent] = useState("$first");', "const PAGES = $items;"
        view = (
            "<div .root><ul .tabs>{PAGES.map(({ title }) => <li key={title}><button "
            'className={title === current ? "on" : "off"} onClick={() => setCurrent(title)}>{title}</button>'
            "</li>)}"
            f"</ul>{mark}{{PAGES.map(({{ title, text }}) => <p key={{title}} hidden={{title !== "
            f"current}}>{{text}}</p>)}}"
            "</div>"
        )
    code = m.write(
        m.pick(("Tabs", "TabPanel", pascal(names[0], "tabs"), "TabView")),
        view,
        body=body,
        before=before,
        items=items,
        first=names[0],
    )
    count = {2: "two", 3: "three"}[len(names)]
    return m.pair(m.pick(("tab view", "tabs component")), f"with {count} tabs: {', '.join(names)}", code, *names)


QUESTIONS = (
    "Shipping", "Returns", "Opening hours", "Prices", "Parking", "Refunds", "Allergies", "Payment", "Group visits",
    "Lost items", "Pets", "Gift cards",
)  # fmt: skip
SECTION = """\


function Section({ head, text }: { head: string; text: string }) {
  const [open, setOpen] = useState(false);

  return (
    <li>
      <button aria-expanded={open} onClick={() => setOpen(!open)}>
        {head}
      </button>
      {open && <p>{text}</p>}
    </li>
  );
}"""
ACCORDIONS = {  # noun: (what follows the data, statements, markup)
    "accordion with one open section": (
        "",
        "const [open, setOpen] = useState<number | null>(0);",
        "<div .root>{SECTIONS.map((section, i) => <div key={section.head} .section><button "
        "aria-expanded={open === i} onClick={() => setOpen(open === i ? null : i)}>{section.head}</button>"
        "$mark{open === i && <p>{section.text}</p>}</div>)}</div>",
    ),
    "accordion with independent sections": (
        SECTION,
        "",
        "<ul .root>{SECTIONS.map((section) => <Section key={section.head} {...section} />)}</ul>",
    ),
    "details accordion": (
        "",
        "",
        "<section .root>{SECTIONS.map((section) => <details key={section.head}><summary>{section.head}</summary>"
        "$mark<p>{section.text}</p></details>)}</section>",
    ),
}


@family("accordion")
def accordion(m: Maker) -> Pair:
    heads = m.some(QUESTIONS, m.pick((2, 3)))
    rows = list(zip(heads, m.some(words.LINES, len(heads)), strict=True))
    noun = m.pick(tuple(ACCORDIONS))
    helper, body, view = ACCORDIONS[noun]
    code = m.write(
        m.pick(("Accordion", "Faq", "Questions", "HelpAccordion", pascal(heads[0], "faq"))),
        view,
        body=body,
        before="const SECTIONS = $rows;" + helper,
        rows=array(rows, "head text"),
        mark=m.view(("<hr />", '<span className="arrow" />'), ("",)),
    )
    return m.pair(noun, f"for {', '.join(heads)}", code, *heads)


@family("modal")
def modal(m: Maker) -> Pair:
    action, line = m.pick(words.ACTIONS[:24]), m.pick(words.LINES)
    title = m.pick((f"{action}?", "Are you sure?", "Please confirm", f"Really {action[0].lower() + action[1:]}?"))
    escape = m.chance(0.35)
    mark = m.view(("<hr />", '<img src="/info.svg" alt="" />'), ("",))
    dialog = (
        f'<div role="dialog" aria-modal="true" aria-label="$title" .dialog><h2>$title</h2>{mark}<p>$line</p>'
        "<button onClick={() => setOpen(false)}>$close</button></div>"
    )
    view = m.pick(
        (
            f"<div .root><button onClick={{() => setOpen(true)}}>$action</button>{{open && {dialog}}}</div>",
            f"<><button onClick={{() => setOpen(true)}}>$action</button>{{open && "
            f"<div .backdrop onClick={{() => setOpen(false)}}>"
            f"{dialog}</div>}}</>",
            '<section .root><button aria-haspopup="dialog" onClick={() => setOpen(true)}>$action</button>'
            f'<dialog open={{open}} aria-label="$title"><h2>$title</h2>{mark}<p>$line</p><form method="dialog" '
            "onSubmit={() => setOpen(false)}><button>$close</button></form></dialog></section>",
        )
    )
    body = "const [open, setOpen] = useState(false);"
    if escape:
        body += (
            "\n\nuseEffect(() => {\n  const onKey = (event: globalThis.KeyboardEvent) => {\n"
            '    if (event.key === "Escape") setOpen(false);\n  };\n  window.addEventListener("keydown", '
            "onKey);\n"
            '  return () => window.removeEventListener("keydown", onKey);\n}, []);'
        )
    close = m.pick(("Close", "Got it", "Back", "OK"))
    code = m.write(
        pascal(action, m.pick(("modal", "dialog"))), view, body=body, action=action, title=title, line=line, close=close
    )
    end = ", Escape closes it" if escape else ""
    said = f'titled "{title}", opened by "{action}", closed by "{close}"{end}'
    return m.pair(m.pick(("modal", "modal dialog")), said, code, *(["Escape"] if escape else []))


STEPPER_NOUNS = {"buttons": "stepper with back and next", "dots": "stepper with dots", "clickable": "clickable stepper"}
FLOWS = (
    ("Cart", "Address", "Payment"),
    ("Account", "Profile", "Done"),
    ("Date", "Seats", "Snacks", "Pay"),
    ("Upload", "Crop", "Share"),
    ("Mix", "Rest", "Bake"),
    ("Pick", "Pack", "Ship"),
    ("Ask", "Listen", "Write", "Check"),
    ("Name", "Colour", "Size"),
    ("Start", "Quiz", "Score"),
)


@family("stepper")
def stepper(m: Maker) -> Pair:
    steps = m.pick(FLOWS)
    start = m.rng.randrange(len(steps))
    style = m.pick(("buttons", "dots", "clickable"))
    body = f"const [step, setStep] = useState({start});"
    move = (
        "<button disabled={step === 0} onClick={() => setStep(step - 1)}>Back</button>"
        "<button disabled={step === STEPS.length - 1} onClick={() => setStep(step + 1)}>Next</button>"
    )
    mark = m.view(("<hr />",), ("",))
    view = {
        "buttons": '<div .root><ol>{STEPS.map((name, i) => <li key={name} aria-current={i === step ? "step" : '
                   'undefined}>'
                   f"{{name}}</li>)}}</ol>{mark}{move}</div>",
        "dots": "<section .root><h2>{STEPS[step]}</h2>{STEPS.map((name, i) => <span key={name} "
                f'className={{i <= step ? "dot on" : "dot"}} />)}}{move}</section>',
        "clickable": f"<nav .root><p>Step {{step + 1}} of {{STEPS.length}}</p>{mark}{{STEPS.map((name, i) => "
                     f"<button key={{name}} "
                     "disabled={i > step + 1} onClick={() => setStep(i)}>{i < step ? \"✓ \" : \"\"}{name}"
                     "</button>)}</nav>",
    }[style]  # fmt: skip
    code = m.write(
        m.pick(("Stepper", "Steps", "Wizard", pascal(steps[0], "steps"), pascal(steps[-1], "wizard"))),
        view,
        body=body,
        before="const STEPS = $steps;",
        steps=array(steps),
    )
    noun = STEPPER_NOUNS[style]
    return m.pair(noun, f"for {', '.join(steps)}, starting at {steps[start]}", code, *steps, f"useState({start})")
