"""Short families: telling people what is going on."""

from react_data import words
from react_data.family import Maker, Pair, family, pascal, slug


@family("badge", short=True)
def badge(m: Maker) -> Pair:
    text, colour = m.pick(words.STATUSES), m.pick(words.COLOURS)
    painted = m.chance(0.4)
    paint = " style={{ color }}" if painted else ""
    view = m.view(
        (f"<span .root{paint}><span .dot! />{{text}}</span>",
         f'<span .root{paint}><img src="/$slug.svg" alt="" />{{text}}</span>',
         f'<span .root{paint}><svg width="8" height="8"><circle cx="4" cy="4" r="4" /></svg>{{text}}</span>'),
        (f"<span .root{paint}>{{text}}</span>",
         f"<strong .root{paint}>{{text}}</strong>",
         f'<span .root role="status"{paint}><b>{{text}}</b></span>'),
    )  # fmt: skip
    props = 'text: string = "$text"' + ('; color: string = "$colour"' if painted else "")
    code = m.write(
        pascal(text, m.pick(("badge", "tag", "label"))), view, props, text=text, colour=colour, slug=slug(text)
    )
    noun = f"{colour} badge" if painted else m.pick(("badge", "small badge", "status badge"))
    said = m.pick((f'with the text "{text}"', f'that shows "{text}"', f'reading "{text}"'))
    return m.pair(noun, said, code, *([colour] if painted else []))


@family("alert", short=True)
def alert(m: Maker) -> Pair:
    kind = m.pick(tuple(words.NOTICES))
    text = m.pick(words.NOTICES[kind])
    closes = m.chance(0.25)
    button = "<button onClick={() => setOpen(false)}>Close</button>" if closes else ""
    view = m.view(
        (f'<div role="alert" className="alert $kind"><hr /><p>{{text}}</p>{button}</div>',
         f'<div role="alert" className="$kind"><img src="/$kind.svg" alt="$kind" /><p>{{text}}</p>{button}</div>',
         f'<p role="alert" className="$kind"><span .icon! />{{text}}{button}</p>'),
        (f'<div role="alert" className="alert alert-$kind"><strong>$kind</strong><p>{{text}}</p>{button}</div>',
         f'<p role="alert" className="$kind">{{text}}{button}</p>',
         f'<section role="alert" className="$kind"><h2>$title</h2><p>{{text}}</p>{button}</section>'),
    )  # fmt: skip
    body = "const [open, setOpen] = useState(true);\nif (!open) return null;" if closes else ""
    name = pascal(kind, m.pick(("alert", "banner", "message")))
    code = m.write(name, view, 'text: string = "$text"', body, text=text, kind=kind, title=kind.title())
    noun = f"{kind} alert" + (" with a close button" if closes else "")
    return m.pair(noun, m.pick((f'that says "{text}"', f'with the message "{text}"')), code, kind)


@family("spinner", short=True)
def spinner(m: Maker) -> Pair:
    thing = m.pick(
        (
            "photos",
            "songs",
            "orders",
            "the map",
            "recipes",
            "comments",
            "your trips",
            "the menu",
            "tickets",
            "messages",
            "films",
            "prices",
            "the forecast",
            "lessons",
            "stories",
            "results",
        )
    )
    size = m.pick((16, 20, 24, 32, 40, 48, 64))
    view = m.view(
        ('<div .root role="status"><span .ring! style={{ width: size }} />Loading $thing</div>',
         '<svg .root width={size} height={size} role="img" aria-label="Loading $thing">'
         '<circle cx="12" cy="12" r="9" fill="none" stroke="gray" /></svg>',
         '<p .root role="status"><img src="/spinner.gif" alt="" width={size} />Loading $thing</p>'),
        ('<p .root role="status" style={{ fontSize: size }}>Loading $thing…</p>',
         '<div .root aria-busy="true" style={{ height: size }}><span>Loading $thing…</span></div>',
         '<div .root role="status"><span style={{ fontSize: size }}>◌</span><p>Loading $thing</p></div>'),
    )  # fmt: skip
    name = pascal(m.pick((thing, "")), m.pick(("spinner", "loader", "loading")))
    code = m.write(name, view, f"size: number = {size}", thing=thing)
    noun = m.pick(("spinner", "loading indicator", "loader"))
    said = m.pick((f'with the text "Loading {thing}"', f'saying "Loading {thing}"'))
    return m.pair(noun, f"{said}, size {size}", code, str(size))


@family("progress", short=True)
def progress(m: Maker) -> Pair:
    thing = m.pick((*words.TOPICS, "Upload", "Course", "Marathon", "Savings", "Level", "Download", "Quiz", "Profile"))
    value = m.rng.randrange(5, 100, 5)
    view = m.view(
        ("<label .root>$thing<progress value={value} max={100} /></label>",
         '<div .root><p>$thing {value}%</p><div .bar! style={{ width: value + "%" }} /></div>',
         "<p .root>$thing<br />{value}% done</p>",
         '<div .root role="progressbar" aria-label="$thing" aria-valuenow={value}>'
         '<span style={{ width: `$${value}%` }} /></div>'),
        ("<label .root>$thing<progress value={value} max={100}>{value}%</progress></label>",
         '<div .root role="progressbar" aria-valuenow={value}>$thing: {value}%</div>',
         '<div .root><h3>$thing</h3><div .bar! style={{ width: `$${value}%` }}>{value}%</div></div>'),
    )  # fmt: skip
    code = m.write(pascal(thing, "progress"), view, f"value: number = {value}", thing=thing)
    noun = m.pick(("progress bar", "progress indicator"))
    return m.pair(noun, f'for "{thing}" at {value} percent', code, str(value))


@family("tooltip", short=True)
def tooltip(m: Maker) -> Pair:
    word, hint = m.pick(words.TOPICS), m.pick(words.LINES)
    body = "const [open, setOpen] = useState(false);"
    hover = "onMouseEnter={() => setOpen(true)} onMouseLeave={() => setOpen(false)}"
    stateful = m.chance(0.5)
    if stateful:
        view = m.view(
            (
                f"<span .root {hover}>$word{{open && <em><br />$hint</em>}}</span>",
                f'<span {hover}><img src="/help.svg" alt="$word" />{{open && <span role="tooltip">$hint</span>}}'
                f"</span>",
            ),
            (
                f'<span .root {hover}>$word{{open && <span role="tooltip">$hint</span>}}</span>',
                f"<div {hover}><b>$word</b>{{open && <p .tip>$hint</p>}}</div>",
            ),
        )
        code = m.write(pascal(word, "tooltip"), view, body=body, word=word, hint=hint)
    else:
        view = m.view(
            (
                "<span .root title={hint}><i .mark! />$word</span>",
                '<span .root title={hint}>$word<img src="/info.svg" alt="Info" /></span>',
            ),
            (
                "<abbr .root title={hint}>$word</abbr>",
                '<span .root tabIndex={0}>$word<span role="tooltip">{hint}</span></span>',
            ),
        )
        code = m.write(
            pascal(word, m.pick(("tip", "tooltip", "hint"))), view, 'hint: string = "$hint"', word=word, hint=hint
        )
    noun = "hover tooltip" if stateful else "tooltip"
    return m.pair(noun, f'on "{word}" that tells "{hint}"', code)


@family("empty_state", short=True)
def empty_state(m: Maker) -> Pair:
    topic = m.pick(words.TOPICS)
    action = m.chance(0.5)
    button = f"<button>Add {topic.lower()}</button>" if action else ""
    view = m.view(
        (f'<div .root><img src="/empty.svg" alt="" /><h2>{{title}}</h2>{button}</div>',
         f"<section .root><h2>{{title}}</h2><hr /><p>$hint</p>{button}</section>",
         f'<div .root><span .icon! /><p>{{title}}</p>{button}</div>'),
        (f"<div .root><h2>{{title}}</h2><p>$hint</p>{button}</div>",
         f'<p .root role="status">{{title}} {button}</p>',
         f'<section .root><span aria-hidden="true">∅</span><h3>{{title}}</h3>{button}</section>'),
    )  # fmt: skip
    title = m.pick((f"No {topic.lower()} yet", f"No {topic.lower()} found", f"Nothing in {topic.lower()}"))
    hint = m.pick(("Check back soon.", "Try another search.", "Things will show up here.", "All quiet for now."))
    code = m.write(pascal(m.pick(("empty", "no")), topic), view, 'title: string = "$title"', title=title, hint=hint)
    noun = "empty state with a button" if action else "empty state"
    said = m.pick((f'that says "{title}"', f'titled "{title}"'))
    return m.pair(noun, said, code, *(["button"] if action else []))
