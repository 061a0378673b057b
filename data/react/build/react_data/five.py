"""Five hand-written examples, a little richer than the generated ones: the small set of a first experiment."""

BOOKING_BUTTON = """\
export default function BookingButton({ label = "Book a seat", busy = false }) {
  return (
    <button type="button" className="booking-button" disabled={busy} aria-busy={busy}>
      {busy && <span className="booking-button-spinner" />}
      {busy ? "One moment…" : label}
    </button>
  );
}"""

EVENT_CARD = """\
const EVENT = { title: "Night market", place: "Harbour square", date: "12 June", image: "/img/night-market.jpg" };

export default function EventCard({ event = EVENT }) {
  return (
    <article className="event-card">
      <img src={event.image} alt={`Poster for ${event.title}`} />
      <div className="event-card-body">
        <h2>{event.title}</h2>
        <p>
          {event.date}, {event.place}
        </p>
        <a href="/tickets">Get tickets</a>
      </div>
    </article>
  );
}"""

FEEDBACK_FORM = """\
import { useState, type FormEvent } from "react";

export default function FeedbackForm() {
  const [name, setName] = useState("");
  const [text, setText] = useState("");
  const [sent, setSent] = useState(false);

  function handleSubmit(event: FormEvent) {
    event.preventDefault();
    setSent(true);
  }

  if (sent) {
    return <p role="status">Thank you, {name}. We read every message.</p>;
  }

  return (
    <form className="feedback-form" onSubmit={handleSubmit}>
      <label>
        Your name
        <input value={name} onChange={(event) => setName(event.target.value)} required />
      </label>
      <label>
        What should we improve?
        <textarea value={text} onChange={(event) => setText(event.target.value)} rows={4} />
      </label>
      <button type="submit" disabled={!name || text.length < 10}>
        Send feedback
      </button>
    </form>
  );
}"""

SHOPPING_LIST = """\
import { useState } from "react";

const START = ["Oat milk", "Rye bread", "Tomatoes"];

export default function ShoppingList() {
  const [items, setItems] = useState(START);
  const [draft, setDraft] = useState("");

  const add = () => {
    if (!draft.trim()) return;
    setItems([...items, draft.trim()]);
    setDraft("");
  };

  return (
    <section className="shopping-list">
      <h2>Shopping list</h2>
      <ul>
        {items.map((item, index) => (
          <li key={index}>
            {item}
            <button onClick={() => setItems(items.filter((_, i) => i !== index))}>Remove</button>
          </li>
        ))}
      </ul>
      <input aria-label="New item" value={draft} onChange={(event) => setDraft(event.target.value)} />
      <button onClick={add}>Add</button>
    </section>
  );
}"""

VISITOR_COUNTER = """\
import { useState } from "react";

type Props = { start?: number; limit?: number };

export default function VisitorCounter({ start = 0, limit = 20 }: Props) {
  const [count, setCount] = useState(start);
  const full = count >= limit;

  return (
    <div className="visitor-counter">
      <p aria-live="polite">
        {count} of {limit} visitors inside
      </p>
      <progress value={count} max={limit} />
      <button onClick={() => setCount(count - 1)} disabled={count === 0}>
        One out
      </button>
      <button onClick={() => setCount(count + 1)} disabled={full}>
        {full ? "House full" : "One in"}
      </button>
    </div>
  );
}"""

FIVE: list[dict[str, str]] = [
    {
        "prompt": 'Write a React button "Book a seat" that shows a spinner and is disabled while it is busy.',
        "completion": BOOKING_BUTTON,
        "family": "button",
    },
    {
        "prompt": "Create a React card for an event with a poster image, a title, the date and place, and a ticket "
        "link.",
        "completion": EVENT_CARD,
        "family": "card",
    },
    {
        "prompt": "Build a feedback form in React with a name and a message that thanks the visitor once it is sent.",
        "completion": FEEDBACK_FORM,
        "family": "contact_form",
    },
    {
        "prompt": "How do I build a shopping list in React where items can be added and removed?",
        "completion": SHOPPING_LIST,
        "family": "list",
    },
    {
        "prompt": "I need a visitor counter with plus and minus buttons, a progress bar and a limit of 20 people.",
        "completion": VISITOR_COUNTER,
        "family": "counter",
    },
]
