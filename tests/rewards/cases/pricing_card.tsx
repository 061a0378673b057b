//// prompt
Write a pricing card for the plan "Studio" at 18 euros a month with three features, unlimited projects, shared folders and phone support, and a button "Choose Studio".
//// reference
const FEATURES = ["Unlimited projects", "Shared folders", "Phone support"];

export default function PricingCard({ features = FEATURES }) {
  return (
    <article className="pricing-card">
      <h2>Studio</h2>
      <p className="price">18 € <small>a month</small></p>
      <ul>
        {features.map((feature) => (
          <li key={feature}>{feature}</li>
        ))}
      </ul>
      <button type="button">Choose Studio</button>
    </article>
  );
}
//// right
import React from "react";

type Props = { name?: string; price?: number };

const PricingCard: React.FC<Props> = ({ name = "Studio", price = 18 }) => (
  <article className="pricing-card">
    <h2>{name}</h2>
    <p className="price">
      {price} € <small>a month</small>
    </p>
    <ul>
      <li>Unlimited projects</li>
      <li>Shared folders</li>
      <li>Phone support</li>
    </ul>
    <button type="button">Choose {name}</button>
  </article>
);

export default PricingCard;
//// different
export function StudioPlan() {
  const points = ["Unlimited projects", "Shared folders", "Phone support"];
  return (
    <section className="plan">
      <h3 className="plan-title">Studio</h3>
      <strong>18 euros a month</strong>
      <ul className="plan-points">
        {points.map((point, index) => <li key={index}>{point}</li>)}
      </ul>
      <button onClick={() => console.log("chosen")}>Choose Studio</button>
    </section>
  );
}
