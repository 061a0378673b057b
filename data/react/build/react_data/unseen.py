"""Families that never occur in training: they measure what carries over to new kinds of components."""

from react_data import words
from react_data.family import Maker, Pair, array, family, pascal, slug


@family("chip", short=True, unseen=True)
def chip(m: Maker) -> Pair:
    text = m.pick((*words.PLANTS, *words.ANIMALS, *words.TOPICS))
    removable = m.chance(0.5)
    end = '<button aria-label="Remove" onClick={() => setShown(false)}>×</button>' if removable else ""
    view = m.view(
        (
            f'<span .root><img src="/$slug.png" alt="" />{{text}}{end}</span>',
            f"<div .root><i .dot! />{{text}}{end}</div>",
        ),
        (f"<span .root>{{text}}{end}</span>", f"<div .root><b>{{text}}</b>{end}</div>"),
    )
    body = "const [shown, setShown] = useState(true);\nif (!shown) return null;" if removable else ""
    code = m.write(pascal(text, "chip"), view, 'text: string = "$text"', body, text=text, slug=slug(text))
    return m.pair("removable chip" if removable else "chip", m.pick((f'for "{text}"', f'with the text "{text}"')), code)


@family("weather_tile", short=True, unseen=True)
def weather_tile(m: Maker) -> Pair:
    city, degrees = m.pick(words.CITIES), m.rng.randint(-9, 36)
    sky, glyph = m.pick((("Sunny", "☀"), ("Rain", "☂"), ("Snow", "❄"), ("Cloudy", "☁")))
    view = m.view(
        ('<div .root><img src="/$low.svg" alt="$sky" /><h3>$city</h3><p>{degrees}°</p></div>',
         "<section .root><h3>$city</h3><hr /><p>$sky, {degrees}°</p></section>"),
        ('<div .root><h3>$city</h3><span aria-label="$sky">$glyph</span><p>{degrees}°</p></div>',
         "<p .root><b>$city</b> {degrees}° <em>$sky</em></p>"),
    )  # fmt: skip
    code = m.write(
        pascal(city, "weather"), view, f"degrees: number = {degrees}", city=city, sky=sky, glyph=glyph, low=sky.lower()
    )
    return m.pair("weather tile", f'for "{city}": {sky.lower()}, {degrees} degrees', code, sky, str(degrees))


@family("keyboard_hint", short=True, unseen=True)
def keyboard_hint(m: Maker) -> Pair:
    action = m.pick(words.ACTIONS)
    keys = [m.pick(("Ctrl", "Alt", "Shift")), m.pick(tuple("ABDEFKLMPSXZ"))]
    view = m.view(
        ('<p .root>{keys.map((key) => <kbd key={key}>{key}</kbd>)}<br />$action</p>',
         '<div .root><span>$action</span><hr />{keys.map((key) => <kbd key={key}>{key}</kbd>)}</div>'),
        ("<p .root>$action: {keys.map((key) => <kbd key={key}>{key}</kbd>)}</p>",
         '<div .root><b>$action</b><kbd>{keys.join("+")}</kbd></div>'),
    )  # fmt: skip
    code = m.write(
        pascal(action, m.pick(("keys", "shortcut"))), view, "keys: string[] = $keys", action=action, keys=array(keys)
    )
    return m.pair("keyboard hint", f'for "{action}" with {" and ".join(keys)}', code, *keys)


@family("coupon", short=True, unseen=True)
def coupon(m: Maker) -> Pair:
    off, place = m.pick((5, 10, 15, 20, 25, 30, 50)), m.pick(words.BRANDS)
    safe, code_word = place.replace("&", "&amp;"), f"{m.pick(words.PLANTS).upper()}{off}"
    view = m.view(
        ("<div .root><h3>$safe</h3><hr /><code>{code}</code><p>$off% off</p></div>",
         '<label .root>$off% off at $safe<input value={code} readOnly /></label>'),
        ("<div .root><strong>$off% off</strong><p>$safe</p><code>{code}</code></div>",
         "<p .root>Use <code>{code}</code> for $off% off at $safe</p>"),
    )  # fmt: skip
    code = m.write(
        pascal(m.pick((place, "")), "coupon"), view, 'code: string = "$word"', safe=safe, off=off, word=code_word
    )
    return m.pair("coupon", f'for {place} with the code "{code_word}" and {off} percent off', code, place, str(off))


@family("like_button", short=True, unseen=True)
def like_button(m: Maker) -> Pair:
    thing, start = m.pick((*words.SONGS, *words.DISHES)), m.rng.randint(0, 40)
    view = m.view(
        ("<button .root onClick={() => setLikes(likes + 1)}><span .heart! />$thing {likes}</button>",
         "<div .root><p>$thing<br />{likes} likes</p><button onClick={() => setLikes(likes + 1)}>Like</button>"
         "</div>"),
        ("<button .root onClick={() => setLikes(likes + 1)}>♥ $thing {likes}</button>",
         "<div .root><h3>$thing</h3><button onClick={() => setLikes(likes + 1)}>{likes} likes</button></div>"),
    )  # fmt: skip
    code = m.write(pascal(thing, "likes"), view, body=f"const [likes, setLikes] = useState({start});", thing=thing)
    return m.pair("like button", f'for "{thing}" that starts at {start} likes', code, str(start))


@family("comment_thread", unseen=True)
def comment_thread(m: Maker) -> Pair:
    rows = list(zip(m.some(words.PEOPLE, 2), m.some(words.LINES, 2), strict=True))
    answer = m.chance(0.5)
    mark = m.view(("<hr />",), ("",))
    field = (
        (
            '<textarea aria-label="Reply" value={text} onChange={(e) => setText(e.target.value)} />'
            "<button disabled={!text}>"
            "Reply</button>"
        )
        if answer
        else ""
    )
    body = 'const [text, setText] = useState("");' if answer else ""
    view = m.pick(
        (
            f"<section .root>{{COMMENTS.map((comment) => <article key={{comment.name}}><h4>{{comment.name}}</h4>"
            f"<p>{{comment.text}}</p></article>)}}{mark}{field}</section>",
            f"<div .root><h3>{{COMMENTS.length}} comments</h3>{mark}<ul>{{COMMENTS.map(({{ name, text: said }}) => "
            f"<li key={{name}}>"
            f"<b>{{name}}</b><p>{{said}}</p></li>)}}</ul>{field}</div>",
        )
    )
    code = m.write(
        m.pick(("Comments", "CommentThread", "Discussion")),
        view,
        body=body,
        before=f"const COMMENTS = {array(rows, 'name text')};",
    )
    noun = "comment thread with a reply field" if answer else "comment thread"
    return m.pair(noun, f"by {rows[0][0]} and {rows[1][0]}", code, rows[0][0], rows[1][0])


@family("quiz", unseen=True)
def quiz(m: Maker) -> Pair:
    pool = m.pick((words.CITIES, words.PLANTS, words.ANIMALS, words.COLOURS))
    options = m.some(pool, 3)
    right = m.pick(options)
    question = m.pick(("Which one is right?", "What comes next?", "Which one did we visit?", "Who hides here?"))
    mark = m.view(("<hr />", "<br />"), ("",))
    body = 'const [answer, setAnswer] = useState("");'
    result = '<p role="status">{answer === "$right" ? "Right!" : "Try again."}</p>'
    buttons = "{OPTIONS.map((option) => <button key={option} onClick={() => setAnswer(option)}>{option}</button>)}"
    view = m.pick(
        (
            f"<section .root><h2>$question</h2>{buttons}{mark}{{answer && {result}}}</section>",
            f"<fieldset .root><legend>$question</legend>{mark}{buttons}{{answer ? {result} : <p>Pick one.</p>}}"
            f"</fieldset>",
        )
    )
    code = m.write(
        m.pick(("Quiz", "Question", "QuizCard")),
        view,
        body=body,
        before="const OPTIONS = $options;",
        options=array(options),
        right=right,
        question=question,
    )
    return m.pair("quiz question", f'"{question}" with {", ".join(options)}; {right} is right', code, *options)


@family("week_planner", unseen=True)
def week_planner(m: Maker) -> Pair:
    days, tasks = m.some(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat"), 2), m.some(words.TASKS, 2)
    plan = array(list(zip(days, tasks, strict=True)), "day task")
    mark = m.view(("<hr />",), ("",))
    picks = m.chance(0.5)
    if picks:
        body = f'const [day, setDay] = useState("{days[0]}");'
        view = (
            f"<div .root>{{PLAN.map((entry) => <button key={{entry.day}} onClick={{() => "
            f"setDay(entry.day)}}>{{entry.day}}"
            f"</button>)}}{mark}<p>{{PLAN.find((entry) => entry.day === day)?.task}}</p></div>"
        )
    else:
        body = ""
        view = (
            f"<table .root><tbody>{{PLAN.map((entry) => <tr key={{entry.day}}><th>{{entry.day}}</th>"
            f"<td>{{entry.task}}"
            f"{mark}</td></tr>)}}</tbody></table>"
        )
    code = m.write(m.pick(("WeekPlan", "Planner", "WeekPlanner")), view, body=body, before=f"const PLAN = {plan};")
    noun = "week planner with day buttons" if picks else "week planner table"
    return m.pair(
        noun, f"with {tasks[0].lower()} on {days[0]} and {tasks[1].lower()} on {days[1]}", code, *days, *tasks
    )
