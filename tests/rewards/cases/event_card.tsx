//// prompt
Write a card for the concert "Night Strings" on 9 May at 20:00 in the Old Mill, with a "Get tickets" link.
//// reference
export default function EventCard() {
  return (
    <article className="event-card">
      <h2>Night Strings</h2>
      <time dateTime="2025-05-09T20:00">9 May, 20:00</time>
      <p>Old Mill</p>
      <a className="tickets" href="/tickets">Get tickets</a>
    </article>
  );
}
//// right
const EVENT = { title: "Night Strings", at: "2025-05-09T20:00", when: "9 May, 20:00", where: "Old Mill" };

export default function Concert({ event = EVENT }: { event?: typeof EVENT }) {
  const { title, at, when, where } = event;
  return (
    <article className="event-card">
      <h2>{title}</h2>
      <time dateTime={at}>{when}</time>
      <p>{where}</p>
      <a className="tickets" href="/tickets">Get tickets</a>
    </article>
  );
}
//// different
export default function Card({ title, date, place }) {
  return (
    <div className="card">
      <div className="card-body">
        <h3>{title ?? "Night Strings"}</h3>
        <ul>
          <li>{date ?? "9 May"}</li>
          <li>20:00</li>
          <li>{place ?? "Old Mill"}</li>
        </ul>
        <a href="#tickets">Get tickets</a>
      </div>
    </div>
  );
}
