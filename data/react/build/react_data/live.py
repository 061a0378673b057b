"""Longer families: what changes and is announced."""

from react_data import words
from react_data.family import Maker, Pair, array, family, pascal, slug


@family("notifications")
def notifications(m: Maker) -> Pair:
    texts, style = (
        [m.pick(words.NOTICES[kind]) for kind in m.some(tuple(words.NOTICES), 2)],
        m.pick(("dismiss", "unread", "bell")),
    )
    mark = m.view(("<span .dot! />",), ("", ""))
    before = "const NOTES = $notes;"
    if style == "dismiss":
        body = "const [notes, setNotes] = useState(NOTES);"
        view = (
            f'<ul .root>{{notes.map((note) => <li key={{note}}>{mark}<p>{{note}}</p><button aria-label="Dismiss" '
            "onClick={() => setNotes(notes.filter((other) => other !== note))}>×</button></li>)}</ul>"
        )
    elif style == "unread":
        body = (
            "const [read, setRead] = useState<string[]>([]);\n"
            "const unread = NOTES.filter((note) => !read.includes(note));"
        )
        view = (
            f"<section .root><h2>Inbox ({{unread.length}})</h2>{{NOTES.map((note) => <p key={{note}} "
            f'className={{read.includes(note) ? "read" : "unread"}} onClick={{() => setRead([...read, note])}}>'
            f"{{note}}</p>)}}{mark}<button onClick={{() => setRead(NOTES)}}>Mark all as read</button></section>"
        )
    else:
        body = "const [open, setOpen] = useState(true);"
        view = (
            f"<div .root><button aria-expanded={{open}} onClick={{() => setOpen(!open)}}>{mark}"
            f"<b>{{NOTES.length}} new</b>"
            "</button>{open && <ol>{NOTES.map((note) => <li key={note}>{note}</li>)}</ol>}</div>"
        )
    code = m.write(
        m.pick(("Notifications", "NotificationList", "Inbox", "Alerts", "NoteBell")),
        view,
        body=body,
        before=before,
        notes=array(texts),
    )
    noun = {
        "dismiss": "notification list to dismiss",
        "unread": "notification list with read marks",
        "bell": "notification menu",
    }[style]
    return m.pair(noun, f'with "{texts[0]}" and "{texts[1]}"', code)


LIVE_NOUNS = {
    "message": "live region that announces additions",
    "count": "live counter for screen readers",
    "form": "form that announces its result",
}


@family("live_region")
def live_region(m: Maker) -> Pair:
    thing = m.pick(("cart", "wish list", "team", "menu", "guest list", "playlist", "garden plan", "shelf", "basket"))
    product = m.pick((*(name for name, _ in words.PRODUCTS), *words.SONGS, *words.PLANTS))
    level, style = m.pick(("polite", "assertive")), m.pick(("message", "count", "form"))
    mark = m.view(("<hr />", '<img src="/$slug.jpg" alt="" />'), ("",))
    if style == "message":
        body = 'const [message, setMessage] = useState("");'
        view = (
            f'<div .root><h2>{{item}}</h2>{mark}<button onClick={{() => setMessage(item + " added to $thing")}}>Add'
            f"</button>"
            '<p aria-live="$level">{message}</p></div>'
        )
    elif style == "count":
        body = "const [count, setCount] = useState(0);"
        view = (
            f"<section .root>{mark}<button onClick={{() => setCount(count + 1)}}>Add {{item}}</button>"
            '<p role="status" aria-live="$level">{count === 0 ? "Nothing in the $thing" : `$${count} in the '
            "$thing`}</p>"
            "</section>"
        )
    else:
        body = (
            'const [text, setText] = useState("");\nconst [said, setSaid] = useState("");\n\n'
            "const submit = (event: FormEvent) => {\n  event.preventDefault();\n"
            "  setSaid(`$${text || item} goes to the $thing`);\n};"
        )
        view = (
            "<form .root onSubmit={submit}><label>Add to the $thing <input value={text} placeholder={item} "
            'onChange={(e) => setText(e.target.value)} /></label><button>Add</button><div aria-live="$level">{said}'
            "</div>"
            "</form>"
        )
    code = m.write(
        pascal("add to", thing) if m.chance(0.5) else pascal(thing, "status"),
        view,
        'item: string = "$product"',
        body,
        thing=thing,
        product=product,
        level=level,
        slug=slug(product),
    )
    noun = LIVE_NOUNS[style]
    return m.pair(noun, f'for "{product}" in the {thing}, with aria-live {level}', code, level, thing)


@family("copy_button")
def copy_button(m: Maker) -> Pair:
    topic = m.pick((*words.TOPICS, *words.CITIES))
    text = m.pick(
        (f"https://example.com/{slug(topic)}", f"{topic.upper()[:6]}-{m.rng.randint(10, 99)}", f"npm run {slug(topic)}")
    )
    style = m.pick(("plain", "timeout", "async"))
    done = m.pick(("Copied!", "Done", "In your clipboard"))
    mark = m.view(("<span .icon! />", '<img src="/copy.svg" alt="" />'), ("", ""))
    make = "const [copied, setCopied] = useState(false);"
    call = "navigator.clipboard.writeText(text)"
    body = {
        "plain": f"{make}\n\nconst copy = () => {{\n  {call};\n  setCopied(true);\n}};",
        "timeout": f"{make}\n\nfunction copy() {{\n  {call};\n  setCopied(true);\n  setTimeout(() => "
                   f"setCopied(false), $ms);\n}}",
        "async": f"{make}\n\nasync function copy() {{\n  try {{\n    await {call};\n    setCopied(true);\n  }} "
                 f"catch {{\n"
                 "    setCopied(false);\n  }\n}",
    }[style]  # fmt: skip
    view = m.pick((
        f'<button .root onClick={{copy}}>{mark}{{copied ? "$done" : "Copy"}}</button>',
        f'<div .root><code>{{text}}</code><button onClick={{copy}}>{mark}<span>{{copied ? "$done" : "Copy"}}</span>'
        f'</button></div>',
        f'<p .root><button title="Copy" onClick={{copy}}>{mark}{{text}}</button>{{copied && <em role="status">$done'
        f'</em>}}</p>',
    ))  # fmt: skip
    code = m.write(
        pascal("copy", topic) if m.chance(0.5) else m.pick(("CopyButton", "CopyText", "Clipboard")),
        view,
        'text: string = "$text"',
        body,
        text=text,
        done=done,
        ms=m.pick((1000, 1500, 2000, 3000)),
    )
    noun = {"plain": "copy button", "timeout": "copy button that resets", "async": "copy button with error handling"}[
        style
    ]
    return m.pair(noun, f'for "{text}" that then says "{done}"', code)
