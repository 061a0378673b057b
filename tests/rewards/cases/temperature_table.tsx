//// prompt
A table of the week's temperatures with day, low and high: Mon 4 and 11, Tue 6 and 13, Wed 3 and 9.
//// reference
const ROWS = [
  { day: "Mon", low: 4, high: 11 },
  { day: "Tue", low: 6, high: 13 },
  { day: "Wed", low: 3, high: 9 },
];

export default function TemperatureTable({ rows = ROWS }) {
  return (
    <table className="temperatures">
      <thead>
        <tr>
          <th>Day</th>
          <th>Low</th>
          <th>High</th>
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={row.day}>
            <td>{row.day}</td>
            <td>{row.low}</td>
            <td>{row.high}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
//// right
const columns = ["Day", "Low", "High"] as const;
const values: [string, number, number][] = [["Mon", 4, 11], ["Tue", 6, 13], ["Wed", 3, 9]];

export default function Temperatures() {
  const head = columns.map((name) => <th key={name}>{name}</th>);
  const body = values.map((row) => (
    <tr key={row[0]}>{row.map((value) => <td key={value}>{value}</td>)}</tr>
  ));
  return (
    <table className="temperatures">
      <thead><tr>{head}</tr></thead>
      <tbody>{body}</tbody>
    </table>
  );
}
//// different
import { memo } from "react";

const Week = memo(function Week() {
  return (
    <figure>
      <figcaption>Temperatures of the week</figcaption>
      <table>
        <tbody>
          <tr><th scope="col">day</th><th scope="col">low</th><th scope="col">high</th></tr>
          <tr><th scope="row">Mon</th><td>4°</td><td>11°</td></tr>
          <tr><th scope="row">Tue</th><td>6°</td><td>13°</td></tr>
          <tr><th scope="row">Wed</th><td>3°</td><td>9°</td></tr>
        </tbody>
      </table>
    </figure>
  );
});

export default Week;
