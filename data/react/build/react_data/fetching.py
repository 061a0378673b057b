"""Longer families: data that arrives."""

from react_data import words
from react_data.family import Maker, Pair, camel, family, pascal, slug

FETCH_BODIES = {
    "three states": """\
const [$key, $set] = useState<string[]>([]);
const [loading, setLoading] = useState(true);
const [error, setError] = useState("");

useEffect(() => {
  fetch("$path")
    .then((response) => response.json())
    .then($set)
    .catch(() => setError("Could not load $low."))
    .finally(() => setLoading(false));
}, []);

if (loading) return $wait;
if (error) return <p role="alert">{error}</p>;""",
    "reload": """\
const [$key, $set] = useState<string[] | null>(null);
const [error, setError] = useState("");
const [tries, setTries] = useState(0);

useEffect(() => {
  setError("");
  fetch("$path")
    .then((response) => response.json())
    .then($set)
    .catch(() => setError("Could not load $low."));
}, [tries]);""",
    "status": """\
const [$key, $set] = useState<string[]>([]);
const [status, setStatus] = useState("loading");

useEffect(() => {
  fetch("$path")
    .then((response) => response.json())
    .then((data) => {
      $set(data);
      setStatus("ready");
    })
    .catch(() => setStatus("error"));
}, []);""",
    "hook": """\
const { data, error } = useData("$path");
if (error) return <p role="alert">{error}</p>;
if (!data) return $wait;""",
}
FETCH_VIEWS = {
    "three states": "<section .box><h2>$topic</h2>"
    "<ul .root>{$key.map((name) => <li key={name}>{name}</li>)}</ul></section>",
    "reload": '<section .root><h2>$topic</h2>{error && <p role="alert">{error}</p>}{!$key && !error && $wait}'
    "{$key?.map((name) => <p key={name}>{name}</p>)}"
    "<button onClick={() => setTries(tries + 1)}>Reload</button></section>",
    "status": '<div .root><h3>$topic</h3>{status === "loading" && $wait}{status === "error" && '
    '<p role="alert">Could not load $low.</p>}<ol>{$key.map((name) => <li key={name}>{name}</li>)}</ol></div>',
    "hook": '<ul .root aria-label="$topic">{data.map((name) => <li key={name}>{name}</li>)}</ul>',
}
FETCH_NOUNS = {
    "three states": "fetch component with loading and error states",
    "status": "fetch component with one status state",
    "reload": "fetch component with a reload button",
    "hook": "fetch component with a useData hook",
}
USE_DATA = """\
function useData(url: string) {
  const [data, setData] = useState<string[] | null>(null);
  const [error, setError] = useState("");

  useEffect(() => {
    fetch(url)
      .then((response) => response.json())
      .then(setData)
      .catch((problem) => setError(String(problem)));
  }, [url]);

  return { data, error };
}"""


@family("fetch_data")
def fetch_data(m: Maker) -> Pair:
    topic, style = m.pick(words.TOPICS), m.pick(tuple(FETCH_BODIES))
    low, key = topic.lower(), m.pick((camel(topic), camel(topic), "items", "names"))
    path = m.pick(("/api/{}", "/{}.json", "/data/{}")).format(slug(topic))
    code = m.write(
        pascal(topic, m.pick(("list", "loader", "view", "feed"))),
        FETCH_VIEWS[style],
        body=FETCH_BODIES[style],
        before=USE_DATA if style == "hook" else "",
        topic=topic,
        low=low,
        key=key,
        set="set" + pascal(key),
        path=path,
        wait=m.view(('<p role="status"><span className="spinner" /> Loading…</p>',), (f"<p>Loading {low}…</p>",)),
    )
    return m.pair(FETCH_NOUNS[style], f'for "{topic}" from {path}', code, path)
