"""Longer families: collections with rows and pages."""

from react_data import words
from react_data.family import Maker, Pair, array, camel, family, pascal

TODO_BODIES = {
    "tick": """\
const [tasks, setTasks] = useState(TASKS);

const tick = (text: string) =>
  setTasks(tasks.map((task) => (task.text === text ? { ...task, done: !task.done } : task)));""",
    "remove": """\
const [tasks, setTasks] = useState($tasks);
const remove = (gone: string) => setTasks(tasks.filter((task) => task !== gone));""",
    "add": """\
const [tasks, setTasks] = useState($tasks);
const [text, setText] = useState("");

function add() {
  if (!text.trim()) return;
  setTasks([...tasks, text.trim()]);
  setText("");
}""",
}
TODO_FIELD = '<input aria-label="New task" value={text} onChange={(e) => setText(e.target.value)} />'
TODO_VIEWS = {
    "tick": (
        "<section .root><h2>{title}</h2><ul>{tasks.map((task) => <li key={task.text}><label>"
        '<input type="checkbox" checked={task.done} onChange={() => tick(task.text)} /> {task.text}'
        "</label></li>)}</ul>$note</section>",
        "<div .root><h2>{title}</h2>{tasks.map((task) => <button key={task.text} aria-pressed={task.done} "
        "onClick={() => tick(task.text)}>{task.done ? <s>{task.text}</s> : task.text}</button>)}$note</div>",
    ),
    "remove": (
        "<div .root><h3>{title} ({tasks.length})</h3><hr /><ul>{tasks.map((task) => <li key={task}>{task} "
        "<button onClick={() => remove(task)}>Done</button></li>)}</ul>$note</div>",
        "<section .root><h2>{title}</h2><ol>{tasks.map((task) => <li key={task}>"
        "<button onClick={() => remove(task)}>×</button><span>{task}</span></li>)}</ol>$note</section>",
    ),
    "add": (
        "<div .root><h2>{title}</h2><ul>{tasks.map((task, i) => <li key={i}>{task}</li>)}</ul>$note"
        f"{TODO_FIELD}<button onClick={{add}}>Add</button></div>",
        f"<main .root><h1>{{title}}</h1><p>{TODO_FIELD}<button onClick={{add}}>Add</button></p>"
        "<ol>{tasks.map((task, i) => <li key={i}>{task}</li>)}</ol>$note</main>",
    ),
}
TODO_NOUNS = {
    "tick": "todo list to tick off",
    "remove": "todo list to empty",
    "add": "todo list with a field for new tasks",
}


@family("todo_list")
def todo_list(m: Maker) -> Pair:
    tasks, style = m.some(words.TASKS, 2), m.pick(tuple(TODO_BODIES))
    title = m.pick(("To do", "Today", "My tasks", "This week", "Chores", "Errands"))
    noted = m.chance(0.4)
    finished = "tasks.every((task) => task.done)" if style == "tick" else "tasks.length === 0"
    code = m.write(
        m.pick(("TodoList", "Todos", "TaskList", pascal(title))),
        m.pick(TODO_VIEWS[style]),
        props='title: string = "$title"',
        body=TODO_BODIES[style],
        before=f"const TASKS = {array([(task, False) for task in tasks], 'text done')};" if style == "tick" else "",
        title=title,
        tasks=array(tasks),
        note=f"{{{finished} && <p>All done!</p>}}" if noted else "",
    )
    said = " and ".join(task.lower() for task in tasks) + (", and a note when all is done" if noted else "")
    return m.pair(TODO_NOUNS[style], f'titled "{title}" with {said}', code, *tasks, *(["All done"] if noted else []))


TABLE_NOUNS = {"plain": "table", "sort": "sortable table", "foot": "table with a footer row", "caption": "data table"}


@family("table")
def table(m: Maker) -> Pair:
    tables: list[tuple[tuple[str, str], list[tuple[str, object]]]] = [
        (("Product", "Price"), [(name, price) for name, price in m.some(words.PRODUCTS, 3)]),
        (("Measure", "Value"), [(name, value) for name, value in m.some(words.STATS, 3)]),
        (("Name", "Role"), list(zip(m.some(words.PEOPLE, 3), m.some(words.ROLES, 3), strict=True))),
        (("Song", "Minutes"), [(song, m.rng.randint(2, 9)) for song in m.some(words.SONGS, 3)]),
        (("City", "Degrees"), [(city, m.rng.randint(-5, 35)) for city in m.some(words.CITIES, 3)]),
    ]
    heads, rows = m.pick(tables)
    one, two = (camel(head) for head in heads)
    style = m.pick(("plain", "sort", "foot", "caption"))
    caption = m.view(("<caption>$title<br />{rows.length} rows</caption>",), ("<caption>$title</caption>", ""))
    head = f"<thead><tr><th>{heads[0]}</th><th>{heads[1]}</th></tr></thead>"
    line = f"<tr key={{row.{one}}}><td>{{row.{one}}}</td><td>{{row.{two}}}</td></tr>"
    body = ""
    source = "rows"
    if style == "sort":
        body = (
            f"const [up, setUp] = useState(true);\nconst sorted = [...rows].sort((a, b) => (a.{one} "
            f"< b.{one} ? -1 : 1));\n"
            "if (!up) sorted.reverse();"
        )
        head = head.replace(
            f"<th>{heads[0]}</th>", f"<th><button onClick={{() => setUp(!up)}}>{heads[0]}</button></th>"
        )
        source = "sorted"
    foot = (
        f"<tfoot><tr><td colSpan={{2}}>{{rows.length}} {heads[0].lower()} rows</td></tr></tfoot>"
        if style == "foot"
        else ""
    )
    content = f"<table .root>{caption}{head}<tbody>{{{source}.map((row) => {line})}}</tbody>{foot}</table>"
    view = m.pick((content, f"<section .box><h2>$title</h2>{content.replace(caption, '')}</section>"))
    code = m.write(
        pascal(heads[0], m.pick(("table", "grid", "overview"))),
        view,
        "rows: typeof ROWS = ROWS",
        body,
        f"const ROWS = {array(rows, f'{one} {two}')};",
        title=m.pick(("Overview", "All of them", "At a glance")),
    )
    noun = TABLE_NOUNS[style]
    said = f"with {heads[0].lower()} and {heads[1].lower()} for {', '.join(str(row[0]) for row in rows)}"
    return m.pair(noun, said, code, *heads, *(str(row[0]) for row in rows))


@family("pagination")
def pagination(m: Maker) -> Pair:
    pages, topic = m.pick((3, 4, 5, 6, 8, 10, 12)), m.pick((*words.TOPICS, *words.TITLES))
    style = m.pick(("numbers", "arrows", "slice"))
    mark = m.view(("<hr />", "<br />"), ("",))
    before, shown = "", ""
    body = "const [page, setPage] = useState(1);"
    if style == "slice":
        items = m.some(m.pick((words.CITIES, words.DISHES, words.SONGS)), 4)
        size = m.pick((1, 2))
        before = f"const ITEMS = {array(items)};\nconst SIZE = {size};"
        body += "\nconst shown = ITEMS.slice((page - 1) * SIZE, page * SIZE);"
        shown = "<ul>{shown.map((item) => <li key={item}>{item}</li>)}</ul>"
        pages = 4 // size
    back = "<button disabled={page === 1} onClick={() => setPage(page - 1)}>Back</button>"
    ahead = "<button disabled={page === $pages} onClick={() => setPage(page + 1)}>Next</button>"
    numbers = (
        "{Array.from({ length: $pages }, (_, i) => <button key={i} "
        'aria-current={page === i + 1 ? "page" : undefined} onClick={() => setPage(i + 1)}>{i + 1}</button>)}'
    )
    view = {
        "numbers": f'<nav .root aria-label="$topic pages">{numbers}{mark}</nav>',
        "arrows": f"<nav .root><h3>$topic</h3>{mark}{back}<span>{{page}} / $pages</span>{ahead}</nav>",
        "slice": f"<section .root><h2>$topic</h2>{shown}{mark}{m.pick((back + ahead, numbers))}</section>",
    }[style]
    code = m.write(
        pascal(m.pick((topic, "")), m.pick(("pagination", "pager", "pages"))),
        view,
        body=body,
        before=before,
        pages=pages,
        topic=topic,
    )
    noun = {"numbers": "pagination with numbers", "arrows": "pagination with back and next", "slice": "paged list"}[
        style
    ]
    return m.pair(noun, f'for "{topic}" with {pages} pages', code, str(pages))
