//// prompt
Create a login form with email and password, a "Remember me" checkbox and a "Sign in" button.
//// reference
import { useState } from "react";

export default function LoginForm() {
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  return (
    <form className="login-form" onSubmit={(event) => event.preventDefault()}>
      <label>
        Email
        <input type="email" name="email" value={email} onChange={(event) => setEmail(event.target.value)} />
      </label>
      <label>
        Password
        <input type="password" name="password" value={password} onChange={(event) => setPassword(event.target.value)} />
      </label>
      <label>
        <input type="checkbox" name="remember" /> Remember me
      </label>
      <button type="submit">Sign in</button>
    </form>
  );
}
//// right
import * as React from "react";

class LoginForm extends React.Component<{}, { email: string; password: string }> {
  state = { email: "", password: "" };

  render() {
    const { email, password } = this.state;
    return (
      <form className="login-form">
        <label>
          Email
          <input type="email" name="email" value={email} onChange={(e) => this.setState({ email: e.target.value })} />
        </label>
        <label>
          Password
          <input type="password" name="password" value={password} onChange={(e) => this.setState({ password: e.target.value })} />
        </label>
        <label>
          <input type="checkbox" name="remember" /> Remember me
        </label>
        <button type="submit">Sign in</button>
      </form>
    );
  }
}

export default LoginForm;
//// different
import { useRef } from "react";
import { useNavigate } from "react-router-dom";

export default function SignIn() {
  const form = useRef<HTMLFormElement>(null);
  const navigate = useNavigate();
  return (
    <form ref={form} className="card stack" onSubmit={() => navigate("/home")}>
      <label htmlFor="email">Email</label>
      <input id="email" type="email" required />
      <label htmlFor="password">Password</label>
      <input id="password" type="password" required />
      <label className="row"><input type="checkbox" defaultChecked />Remember me</label>
      <button type="submit" className="primary">Sign in</button>
    </form>
  );
}
