"""A few requests with components that fulfill them, for where there is no data at hand."""

REQUESTS = (
    (
        'Show a button saying "Save".',
        'export default function SaveButton() {\n  return <button className="save">Save</button>;\n}',
    ),
    (
        'Make a list of the fruits apple, pear and plum under the heading "Fruits".',
        'const FRUITS = ["apple", "pear", "plum"];\n\nexport default function Fruits() {\n  return (\n    <section>\n'
        "      <h2>Fruits</h2>\n      <ul>\n        {FRUITS.map((fruit) => (\n          <li key={fruit}>{fruit}</li>\n"
        "        ))}\n      </ul>\n    </section>\n  );\n}",
    ),
    (
        "Write a counter that begins at 0 and has a button to add one.",
        'import { useState } from "react";\n\nexport default function Counter() {\n'
        "  const [count, setCount] = useState(0);\n  return (\n    <div>\n      <p>{count}</p>\n"
        "      <button onClick={() => setCount(count + 1)}>Add one</button>\n    </div>\n  );\n}",
    ),
)
