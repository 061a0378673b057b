"""Longer families: forms and what people type into them."""

from react_data import words
from react_data.family import Maker, Pair, array, camel, family, pascal

LOGIN_FIELDS = (
    '<label>$label<input type="$kind" name="$who" required /></label>'
    '<label>Password<input type="password" name="password" required /></label>$remember'
)
LOGIN = {  # noun: (statements, markup)
    "login form": (
        "",
        f'<form .root action="/login" method="post"><h1>{{title}}</h1>{LOGIN_FIELDS}<button>Log in</button></form>',
    ),
    "controlled login form": (
        """\
const [$who, $set] = useState("");
const [password, setPassword] = useState("");

const submit = (event: FormEvent) => {
  event.preventDefault();
  console.log($who, password.length);
};""",
        "<form .root onSubmit={submit}><h2>{title}</h2>"
        '<input aria-label="$label" type="$kind" value={$who} onChange={(e) => $set(e.target.value)} />'
        '<input aria-label="Password" type="password" value={password} '
        "onChange={(e) => setPassword(e.target.value)} />$remember"
        "<button disabled={!$who || !password}>Log in</button></form>",
    ),
    "login form that shows errors": (
        """\
const [error, setError] = useState("");

function submit(event: FormEvent<HTMLFormElement>) {
  event.preventDefault();
  const data = new FormData(event.currentTarget);
  setError(data.get("password") ? "" : "Please enter your password.");
}""",
        '<section .root><h2>{title}</h2>{error && <p role="alert">{error}</p>}<form onSubmit={submit} noValidate>'
        f'{LOGIN_FIELDS}<button type="submit">Log in</button></form></section>',
    ),
}


@family("login_form")
def login_form(m: Maker) -> Pair:
    brand, (who, kind) = m.pick(words.BRANDS), m.pick((("email", "email"), ("username", "text"), ("phone", "tel")))
    noun, remember = m.pick(tuple(LOGIN)), m.chance(0.4)
    body, view = LOGIN[noun]
    title = m.pick(("Log in to {}", "Welcome to {}", "{} login")).format(brand)
    code = m.write(
        m.pick(("LoginForm", "Login", "SignIn", pascal(brand, "login"))),
        view,
        props='title: string = "$title"',
        body=body,
        title=title,
        who=who,
        set="set" + pascal(who),
        kind=kind,
        label=who.title(),
        remember='<label><input type="checkbox" name="remember" /> Remember me</label>' if remember else "",
    )
    said = f'titled "{title}" with {who} and password' + (" and a remember box" if remember else "")
    return m.pair(noun, said, code, who, *(["remember"] if remember else []))


CONTACT_FIELD = '<label>$label<input name="$key" type="$kind" required /></label>'
CONTACT = {  # style: (statements, markup)
    "sent": (
        """\
const [sent, setSent] = useState(false);

const submit = (event: FormEvent) => {
  event.preventDefault();
  setSent(true);
};

if (sent) return <p role="status">$thanks</p>;""",
        f"<form .root onSubmit={{submit}}><h2>{{title}}</h2>{CONTACT_FIELD}"
        '<label>Message<textarea name="message" rows={4} required /></label><button type="submit">Send</button></form>',
    ),
    "counted": (
        """\
const [text, setText] = useState("");
const [sent, setSent] = useState(false);

function submit(event: FormEvent) {
  event.preventDefault();
  setSent(true);
}""",
        f"<form .root onSubmit={{submit}}><h2>{{title}}</h2>{CONTACT_FIELD}"
        '<textarea aria-label="Message" value={text} onChange={(e) => setText(e.target.value)} />'
        "<small>{text.length} of $limit characters</small>"
        "<button disabled={!text || text.length > $limit}>Send</button>{sent && <p>$thanks</p>}</form>",
    ),
    "object": (
        """\
const [form, setForm] = useState({ $key: "", message: "" });
const [sent, setSent] = useState(false);

const submit = (event: FormEvent) => {
  event.preventDefault();
  setSent(true);
};""",
        '<section .root><h2>{title}</h2><form onSubmit={submit}><label>$label<input type="$kind" value={form.$key} '
        "onChange={(e) => setForm({ ...form, $key: e.target.value })} /></label><label>Message"
        "<textarea value={form.message} onChange={(e) => setForm({ ...form, message: e.target.value })} /></label>"
        "<button>Send</button></form>{sent && <p>$thanks</p>}</section>",
    ),
}


@family("contact_form")
def contact_form(m: Maker) -> Pair:
    (label, kind), brand = m.pick(words.FIELDS[:5]), m.pick(words.BRANDS)
    thanks = m.pick(("Thank you!", "We got your message.", "Talk to you soon."))
    title = m.pick((f"Write to {brand}", f"Contact {brand}", f"Ask {brand}"))
    style, limit = m.pick(tuple(CONTACT)), m.pick((140, 200, 300, 500))
    body, view = CONTACT[style]
    code = m.write(
        m.pick(("ContactForm", "Contact", "MessageForm", pascal(brand, "contact"))),
        view,
        props='title: string = "$title"',
        body=body,
        title=title,
        thanks=thanks,
        limit=limit,
        label=label,
        key=camel(label),
        kind=kind,
    )
    end = f", at most {limit} characters" if style == "counted" else ""
    said = f'titled "{title}" with {label.lower()} and message{end}, then "{thanks}"'
    return m.pair("contact form", said, code, label, *([str(limit)] if end else []))


@family("tag_input")
def tag_input(m: Maker) -> Pair:
    pool = m.pick((words.PLANTS, words.ANIMALS, words.ROLES, words.STATUSES, words.COLOURS))
    tags, limit = m.some(pool, 2), m.pick((3, 4, 5, 6, 8))
    limited = m.chance(0.4)
    noun_one = m.pick(("tag", "chip", "label"))
    field = (
        '<input value={text} placeholder="Add a $one" onChange={(e) => setText(e.target.value)} onKeyDown={add} />',
        '<input aria-label="New $one" value={text} onChange={(e) => setText(e.target.value)} onKeyDown={add} />',
    )
    remove = "onClick={() => setTags(tags.filter((other) => other !== tag))}"
    view = m.pick(
        (
            f"<div .root>{{tags.map((tag) => <span key={{tag}} .tag>{{tag}}<button {remove}>×</button></span>)}}"
            f"{m.pick(field)}</div>",
            f'<div .root><ul>{{tags.map((tag) => <li key={{tag}}>{{tag}} <button aria-label={{"Remove " + '
            f"tag}} {remove}>"
            f"×</button></li>)}}</ul>{m.pick(field)}</div>",
            f'<label .root>{{tags.length}} $one{{tags.length === 1 ? "" : "s"}}{m.pick(field)}'
            f'{{tags.map((tag) => <button key={{tag}} type="button" {remove}>{{tag}} ×</button>)}}</label>',
        )
    )
    guard = f" || tags.length >= {limit}" if limited else ""
    body = (
        f'const [tags, setTags] = useState({array(tags)});\nconst [text, setText] = useState("");\n\n'
        "function add(event: KeyboardEvent) {\n"
        f'  if (event.key !== "Enter" || !text || tags.includes(text){guard}) return;\n'
        '  setTags([...tags, text]);\n  setText("");\n}'
    )
    name = pascal(noun_one, m.pick(("input", "field", "editor", "box")))
    code = m.write(name, view, body=body, one=noun_one)
    end = f", at most {limit}" if limited else ""
    return m.pair(
        f"{noun_one} input",
        f"that starts with {' and '.join(tags)}{end}",
        code,
        *tags,
        *([str(limit)] if limited else []),
    )
