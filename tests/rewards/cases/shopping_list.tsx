//// prompt
Show a shopping list titled "Saturday market" with bread, pears, walnuts and goat cheese, each with a checkbox.
//// reference
import { useState } from "react";

const ITEMS = ["Bread", "Pears", "Walnuts", "Goat cheese"];

export default function ShoppingList() {
  const [done, setDone] = useState<string[]>([]);
  return (
    <section className="shopping-list">
      <h2>Saturday market</h2>
      <ul>
        {ITEMS.map((item) => (
          <li key={item}>
            <label>
              <input type="checkbox" checked={done.includes(item)} onChange={() => setDone([...done, item])} />
              {item}
            </label>
          </li>
        ))}
      </ul>
    </section>
  );
}
//// right
import { useReducer } from "react";

function Row({ name, checked, toggle }: { name: string; checked: boolean; toggle: () => void }) {
  return (
    <li>
      <label>
        <input type="checkbox" checked={checked} onChange={toggle} />
        {name}
      </label>
    </li>
  );
}

export default function Market() {
  const [done, toggle] = useReducer(
    (state: Set<string>, name: string) => new Set(state).add(name),
    new Set<string>(),
  );
  const names = ["Bread", "Pears", "Walnuts", "Goat cheese"];
  return (
    <section className="shopping-list">
      <h2>Saturday market</h2>
      <ul>
        {names.map((name) => <Row key={name} name={name} checked={done.has(name)} toggle={() => toggle(name)} />)}
      </ul>
    </section>
  );
}
//// different
export const List = ({ things = ["bread", "pears", "walnuts", "goat cheese"] }) => (
  <div className="todo">
    <h1>Saturday market</h1>
    <ol>
      {things.map((thing) => (
        <li key={thing} className="todo-item">
          <input type="checkbox" id={thing} />
          <label htmlFor={thing}>{thing}</label>
        </li>
      ))}
    </ol>
  </div>
);
