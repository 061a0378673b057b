//// prompt
Make a profile header for Ines Roth, bicycle mechanic in Basel, with a round photo, 128 followers and a Follow button.
//// reference
export default function ProfileHeader({ name = "Ines Roth", followers = 128 }) {
  return (
    <header className="profile">
      <img className="photo round" src="/photos/ines.jpg" alt={name} />
      <h1>{name}</h1>
      <p>Bicycle mechanic in Basel</p>
      <p className="followers">{followers} followers</p>
      <button type="button">Follow</button>
    </header>
  );
}
//// right
interface Person { name: string; job: string; city: string; followers: number }

const ines: Person = { name: "Ines Roth", job: "Bicycle mechanic", city: "Basel", followers: 128 };

export default function Profile() {
  return (
    <header className="profile">
      <img className="photo round" src="/photos/ines.jpg" alt={ines.name}></img>
      <h1>{ines.name}</h1>
      <p>{ines.job} in {ines.city}</p>
      <p className="followers">{`${ines.followers} followers`}</p>
      <button type="button">Follow</button>
    </header>
  );
}
//// different
import { useState } from "react";
import photo from "./ines.png";

export default function Person() {
  const [following, setFollowing] = useState(false);
  return (
    <div className="flex items-center gap-4">
      <img src={photo} alt="Ines Roth" className="rounded-full" />
      <div>
        <h2>Ines Roth</h2>
        <span>bicycle mechanic, Basel</span>
        <span>{128 + Number(following)} followers</span>
      </div>
      <button onClick={() => setFollowing(!following)}>{following ? "Following" : "Follow"}</button>
    </div>
  );
}
