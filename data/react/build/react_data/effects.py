"""Longer families: effects, refs, context and things that fail."""

from react_data import words
from react_data.family import Maker, Pair, camel, family, pascal


@family("timer")
def timer(m: Maker) -> Pair:
    thing, down = m.pick((*words.DISHES, *words.TASKS, *words.SONGS)), m.chance(0.5)
    start = m.pick((5, 10, 30, 60, 90, 120, 300)) if down else 0
    paused = m.chance(0.5)
    change = "Math.max(0, s - 1)" if down else "s + 1"
    guard = "  if (!running) return;\n" if paused else ""
    body = f"const [seconds, setSeconds] = useState({start});\n"
    body += "const [running, setRunning] = useState(true);\n" if paused else ""
    body += (
        f"\nuseEffect(() => {{\n{guard}  const id = setInterval(() => setSeconds((s) => {change}), 1000);\n"
        f"  return () => clearInterval(id);\n}}, [{'running' if paused else ''}]);"
    )
    switch = '<button onClick={() => setRunning(!running)}>{running ? "Pause" : "Go on"}</button>' if paused else ""
    reset = f"<button onClick={{() => setSeconds({start})}}>Reset</button>"
    view = m.view(
        (f"<div .root><h2>{{title}}</h2><hr /><p>{{seconds}} s</p>{switch}{reset}</div>",
         f"<section .root><h3>{{title}}</h3><progress value={{seconds}} max={{{start or 60}}} />{switch}{reset}"
         f"</section>"),
        (f"<div .root><p>{{title}}: {{seconds}} seconds</p>{switch}{reset}</div>",
         f'<section .root><h2>{{title}}</h2><time role="timer">{{Math.floor(seconds / 60)}}:'
         f'{{String(seconds % 60).padStart(2, "0")}}</time>{switch}{reset}</section>'),
    )  # fmt: skip
    name = pascal(m.pick((thing, "")), "countdown" if down else m.pick(("stopwatch", "timer")))
    code = m.write(name, view, 'title: string = "$thing"', body, thing=thing)
    noun = "countdown timer" if down else m.pick(("stopwatch", "seconds timer"))
    ends = (f" from {start} seconds" if down else "") + (" with a pause button" if paused else "")
    return m.pair(noun, f'for "{thing}"{ends}', code, str(start), *(["pause"] if paused else []))


FOCUS_NOUNS = {
    "button": "useRef field that a button focuses",
    "mount": "field focused on mount with useRef",
    "scroll": "useRef heading that a button scrolls to",
    "clear": "useRef field that a button clears and focuses",
}


@family("ref_focus")
def ref_focus(m: Maker) -> Pair:
    (label, kind), action = m.pick(words.FIELDS), m.pick(("Edit", "Focus", "Start typing", "Jump in", "Fill in"))
    style = m.pick(("button", "mount", "scroll", "clear"))
    ref = m.pick(("input", "field", "box"))
    make = f"const {ref} = useRef<HTML{'Heading' if style == 'scroll' else 'Input'}Element>(null);"
    field = f'<input ref={{{ref}}} type="{kind}" aria-label={{label}} />'
    click = f"{ref}.current?.focus()"
    if style == "mount":
        body = f"{make}\n\nuseEffect(() => {{\n  {click};\n}}, []);"
        view = m.pick((f"<label .root>{{label}}{field}</label>", f"<form .root>{field}<button>$action</button></form>"))
    elif style == "scroll":
        body = f"{make}\nconst go = () => {ref}.current?.scrollIntoView();"
        view = m.view(
            (f"<div .root><button onClick={{go}}>$action</button><hr /><h2 ref={{{ref}}}>{{label}}</h2></div>",),
            (f"<main .root><h2 ref={{{ref}}}>{{label}}</h2><button onClick={{go}}>$action</button></main>",),
        )
    elif style == "clear":
        body = (
            f'{make}\n\nfunction clear() {{\n  if (!{ref}.current) return;\n  {ref}.current.value = "";\n  {click};\n}}'
        )
        view = m.pick(
            (
                f"<p .root>{field}<button onClick={{clear}}>$action</button></p>",
                f"<div .root><label>{{label}} {field}</label><button onClick={{clear}}>$action</button></div>",
            )
        )
    else:
        body = make
        view = m.pick(
            (
                f"<div .root>{field}<button onClick={{() => {click}}}>$action</button></div>",
                f"<div .root><button onClick={{() => {click}}}>$action</button><label>{{label}} {field}</label></div>",
            )
        )
    code = m.write(
        pascal(label, m.pick(("focus", "ref", "target"))),
        view,
        'label: string = "$label"',
        body,
        label=label,
        action=action,
    )
    noun = FOCUS_NOUNS[style]
    end = f' and the button "{action}"' if "$action" in view else ""
    return m.pair(noun, f'for "{label}"{end}', code, "useRef")


THEME_NOUNS = {
    "pair": "theme toggle with context",
    "value": "theme provider and consumer",
    "hook": "theme switch with a useTheme hook",
}


@family("theme_toggle")
def theme_toggle(m: Maker) -> Pair:
    topic, first = m.pick(words.TOPICS), m.pick(("light", "dark"))
    other = "dark" if first == "light" else "light"
    ctx = m.pick(("ThemeContext", "Theme", "ColorMode"))
    style = m.pick(("pair", "value", "hook"))
    mark = m.view(("<hr />", "<span .dot! />"), ("",))
    flip = f'"{other}" ? "{first}" : "{other}"'
    if style == "value":
        before = (
            f'const {ctx} = createContext("{first}");\n\nfunction Panel() {{\n  const theme = useContext({ctx});\n'
            "  return <p className={theme}>$topic in {theme} mode</p>;\n}"
        )
        view = (
            f"<{ctx}.Provider value={{theme}}>{mark}<Panel /><button onClick={{() => setTheme(theme === {flip})}}>"
            f"Switch theme</button></{ctx}.Provider>"
        )
    else:
        use = f"useContext({ctx})" if style == "pair" else "useTheme()"
        helper = f"const useTheme = () => useContext({ctx});\n\n" if style == "hook" else ""
        before = (
            f'const {ctx} = createContext({{ theme: "{first}", toggle: () => {{}} }});\n\n{helper}'
            f"function ThemeButton() {{\n  const {{ theme, toggle }} = {use};\n"
            "  return <button onClick={toggle}>Theme: {theme}</button>;\n}"
        )
        view = (
            f"<{ctx}.Provider value={{{{ theme, toggle }}}}><main className={{theme}}><h1>$topic</h1>{mark}"
            f"<ThemeButton />"
            f"</main></{ctx}.Provider>"
        )
    toggle = "" if style == "value" else f"\nconst toggle = () => setTheme(theme === {flip});"
    code = m.write(
        pascal(topic, m.pick(("page", "app", "theme", "layout"))),
        view,
        body=f'const [theme, setTheme] = useState("{first}");{toggle}',
        before=before,
        topic=topic,
    )
    noun = THEME_NOUNS[style]
    return m.pair(noun, f'around "{topic}", at first {first}', code, f'useState("{first}")', "createContext")


FALLBACK_NOUNS = {
    "try": "error fallback around JSON parsing",
    "retry": "error fallback with a retry button",
    "render": "error fallback with children",
}


@family("fallback")
def fallback(m: Maker) -> Pair:
    thing, line = m.pick(words.TOPICS), m.pick(("Something went wrong.", "This part broke.", "We could not show this."))
    style = m.pick(("try", "retry", "render"))
    mark = m.view(('<img src="/oops.svg" alt="" />', "<hr />"), ("",))
    key = camel(thing)
    before, props, body = "", 'message: string = "$line"', ""
    if style == "try":
        before = (
            f"function read{thing}(text: string): string[] {{\n  try {{\n    return JSON.parse(text);\n  }} "
            f"catch {{\n"
            "    return [];\n  }\n}"
        )
        props = f"text: string = '[\"{thing}\"]'"
        body = f'const {key} = read{thing}(text);\nif ({key}.length === 0) return <p role="alert">$line</p>;'
        view = (
            f"<section .root><h2>$thing</h2>{mark}<ul>{{{key}.map((entry) => <li key={{entry}}>{{entry}}</li>)}}"
            f"</ul></section>"
        )
    elif style == "retry":
        body = "const [tries, setTries] = useState(1);"
        view = (
            f'<div .root role="alert">{mark}<h2>$thing</h2><p>{{message}}</p>'
            f"<button onClick={{() => setTries(tries + 1)}}>"
            "Try again ({tries})</button></div>"
        )
    else:
        props = 'broken: boolean = false; message: string = "$line"; children: ReactNode = "$thing"'
        view = f'<div .root>{mark}{{broken ? <p role="alert">{{message}}</p> : <div>{{children}}</div>}}</div>'
    code = m.write(
        pascal(thing, m.pick(("fallback", "guard", "safe view"))), view, props, body, before, thing=thing, line=line
    )
    noun = FALLBACK_NOUNS[style]
    return m.pair(noun, f'for "{thing}" saying "{line}"', code)
