//// prompt
Build a counter of guests that starts at 2, with buttons "Add guest" and "Remove guest".
//// reference
import { useState } from "react";

export default function GuestCounter({ start = 2 }: { start?: number }) {
  const [guests, setGuests] = useState(start);
  return (
    <div className="guest-counter">
      <p aria-live="polite">{guests} guests</p>
      <button type="button" onClick={() => setGuests(guests + 1)}>Add guest</button>
      <button type="button" onClick={() => setGuests(guests - 1)} disabled={guests === 0}>Remove guest</button>
    </div>
  );
}
//// right
import React, { useState, useCallback } from "react";

export default function Guests() {
  const [count, setCount] = useState<number>(2);
  const change = useCallback((by: number) => setCount((old) => old + by), []);
  return React.createElement(
    "div",
    { className: "guest-counter" },
    <p aria-live="polite">{count} guests</p>,
    <button type="button" onClick={() => change(1)}>Add guest</button>,
    <button type="button" onClick={() => change(-1)} disabled={count < 1}>Remove guest</button>,
  );
}
//// different
import { useState } from "react";

const Counter = () => {
  const [n, setN] = useState(2);
  return (
    <section>
      <h2>Guests: {n}</h2>
      <div className="buttons">
        <button onClick={() => setN(n + 1)}>Add guest</button>
        <button onClick={() => setN(Math.max(0, n - 1))}>Remove guest</button>
      </div>
    </section>
  );
};

export default Counter;
