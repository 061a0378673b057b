"""Longer families: reducers, memos and custom hooks."""

from react_data import words
from react_data.family import Maker, Pair, array, family, pascal
from react_data.lists import GROUPS

HOOKS = {  # kind: the hook, the statements that use it, plain markup, markup with a self-closing tag
    "toggle": (
        """\
function useToggle(start = false) {
  const [on, setOn] = useState(start);
  const flip = () => setOn((old) => !old);
  return [on, flip] as const;
}""",
        "const [open, flip] = useToggle();",
        '<button onClick={flip}>{open ? "Hide" : "Show"} $topic</button>{open && <p>$line</p>}',
        "<button aria-expanded={open} onClick={flip}>$topic</button>{open && <hr />}",
    ),
    "count": (
        """\
function useCount(start = $start) {
  const [count, setCount] = useState(start);
  const add = () => setCount((old) => old + 1);
  return { count, add };
}""",
        "const { count, add } = useCount();",
        "<p>$topic: {count}</p><button onClick={add}>Add</button>",
        "<button onClick={add}>$topic</button><br />{count}",
    ),
    "input": (
        """\
function useInput(start = "") {
  const [value, setValue] = useState(start);
  const onChange = (event: ChangeEvent<HTMLInputElement | HTMLTextAreaElement>) =>
    setValue(event.target.value);
  return { value, onChange };
}""",
        'const field = useInput("$topic");',
        '<h2>$topic</h2><textarea aria-label="$topic" value={field.value} onChange={field.onChange}></textarea>',
        '<input aria-label="$topic" {...field} /><p>{field.value.length} letters</p>',
    ),
    "width": (
        """\
function useWidth() {
  const [width, setWidth] = useState(0);

  useEffect(() => {
    const update = () => setWidth(window.innerWidth);
    update();
    window.addEventListener("resize", update);
    return () => window.removeEventListener("resize", update);
  }, []);

  return width;
}""",
        "const width = useWidth();",
        '<h2>$topic</h2><p>{width < 600 ? "Small" : "Large"} screen</p>',
        "<h2>$topic</h2><meter max={2000} value={width} />",
    ),
    "previous": (
        """\
function usePrevious<T>(value: T) {
  const last = useRef<T | null>(null);

  useEffect(() => {
    last.current = value;
  }, [value]);

  return last.current;
}""",
        "const [count, setCount] = useState($start);\nconst before = usePrevious(count);",
        '<p>$topic: {count}, before: {before ?? "none"}</p><button onClick={() => setCount(count + 1)}>Add</button>',
        '<button onClick={() => setCount(count + 1)}>$topic {count}</button><hr /><p>before: {before ?? "none"}</p>',
    ),
    "online": (
        """\
function useOnline() {
  const [online, setOnline] = useState(true);

  useEffect(() => {
    const update = () => setOnline(navigator.onLine);
    window.addEventListener("online", update);
    window.addEventListener("offline", update);
    return () => {
      window.removeEventListener("online", update);
      window.removeEventListener("offline", update);
    };
  }, []);

  return online;
}""",
        "const online = useOnline();",
        '<h2>$topic</h2><p role="status">{online ? "Online" : "Offline"}</p>',
        '<span className={online ? "dot green" : "dot red"} /><h2>$topic</h2>',
    ),
}


@family("custom_hook")
def custom_hook(m: Maker) -> Pair:
    kind, topic, start = m.pick(tuple(HOOKS)), m.pick(words.TOPICS), m.rng.randint(0, 9)
    hook, body, plain, closed = HOOKS[kind]
    tag = m.pick(("div", "section", "article"))
    view = f"<{tag} .root>{closed if m.closing else plain}</{tag}>"
    name = pascal(topic, m.pick(("panel", "view", "demo", kind)))
    code = m.write(name, view, body=body, before=hook, topic=topic, start=start, line=m.pick(words.LINES))
    said = f", starting at {start}" if "$start" in hook + body else ""
    hook_name = "use" + kind.title()
    return m.pair(
        f"custom hook {hook_name}",
        f'and a component for "{topic}" that uses it{said}',
        code,
        hook_name,
        *([str(start)] if said else []),
    )


REDUCERS = (
    """\
type Action = { type: "add" | "remove" | "reset" };

function reducer(state: { $key: number }, action: Action) {
  switch (action.type) {
    case "add":
      return { $key: state.$key + 1 };
    case "remove":
      return { $key: $less };
    default:
      return { $key: $start };
  }
}""",
    """\
function reducer(state: { $key: number }, action: { type: string }) {
  if (action.type === "add") return { $key: state.$key + 1 };
  if (action.type === "remove") return { $key: $less };
  return { $key: $start };
}""",
    """\
type State = { $key: number };

const steps: Record<string, (state: State) => State> = {
  add: (state) => ({ $key: state.$key + 1 }),
  remove: (state) => ({ $key: $less }),
  reset: () => ({ $key: $start }),
};

const reducer = (state: State, action: { type: string }) => steps[action.type](state);""",
)


@family("reducer")
def reducer(m: Maker) -> Pair:
    thing = m.pick(("tickets", "eggs", "points", "cups", "beds", "bikes", "lives", "coins", "boxes", "chairs"))
    start, low, key = m.pick((0, 1, 3, 10)), m.chance(0.4), m.pick(("count", "total", "amount"))
    names = m.pick((("Add", "Remove", "Reset"), ("+", "-", "0"), ("More", "Less", "Restart")))
    buttons = "".join(
        f'<button onClick={{() => dispatch({{ type: "{kind}" }})}}>{name}</button>'
        for kind, name in zip(("add", "remove", "reset"), names, strict=True)
    )
    view = m.view(
        ("<div .root><p>{state.$key} $thing</p><hr />$buttons</div>",
         '<section .root><input aria-label="$thing" value={state.$key} readOnly />$buttons</section>'),
        ("<div .root><h2>$title</h2><output>{state.$key}</output>$buttons</div>",
         "<p .root>$title: {state.$key} $buttons</p>"),
    )  # fmt: skip
    code = m.write(
        pascal(thing, m.pick(("reducer", "counter", "stock", "box"))),
        view,
        body="const [state, dispatch] = useReducer(reducer, { $key: $start });",
        before=m.pick(REDUCERS),
        thing=thing,
        title=thing.title(),
        key=key,
        start=start,
        less=f"Math.max(0, state.{key} - 1)" if low else f"state.{key} - 1",
        buttons=buttons,
    )
    end = ", never below zero" if low else ""
    noun = m.pick(("useReducer counter", "reducer component"))
    return m.pair(noun, f"for {thing} with add, remove and reset, starting at {start}{end}", code, thing, "useReducer")


@family("memo_filter")
def memo_filter(m: Maker) -> Pair:
    group = m.pick(tuple(GROUPS))
    items = m.some(GROUPS[group], m.pick((3, 4)))
    style = m.pick(("contains", "starts", "sorted"))
    test = {
        "contains": "item.toLowerCase().includes(query.toLowerCase())",
        "starts": "item.toLowerCase().startsWith(query.toLowerCase())",
        "sorted": "item.toLowerCase().includes(query.toLowerCase())",
    }[style]
    end = ".sort()" if style == "sorted" else ""
    const = group.upper()
    body = (
        'const [query, setQuery] = useState("");\nconst shown = useMemo(\n'
        f"  () => {const}.filter((item) => {test}){end},\n  [query],\n);"
    )
    field = '<input aria-label="Filter $group" value={query} onChange={(e) => setQuery(e.target.value)} />'
    rows = "{shown.map((item) => <li key={item}>{item}</li>)}"
    view = m.pick(
        (
            f"<div .root>{field}<ul>{rows}</ul></div>",
            f"<section .root><h2>$title</h2>{field}<p>{{shown.length}} found</p><ol>{rows}</ol></section>",
            f"<div .root><label>Find {field}</label>{{shown.length > 0 ? <ul>{rows}</ul> : <p>No $group found</p>}}"
            f"</div>",
        )
    )
    code = m.write(
        pascal(m.pick(("filter", "search", "find")), group),
        view,
        body=body,
        before=f"const {const} = $items;",
        group=group,
        title=group.title(),
        items=array(items),
    )
    noun = {
        "contains": "filter list with useMemo",
        "starts": "prefix filter with useMemo",
        "sorted": "sorted filter list with useMemo",
    }[style]
    return m.pair(noun, f"over {', '.join(items)}", code, *items, "useMemo")
