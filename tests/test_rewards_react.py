"""The React rewards that only read the code: heuristic, syntax and static."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.rewards import RewardError, RewardSpec, RewardSum, Span, SpanReward, load_reward
from rlhf.rewards.code_text import code_of, code_range
from rlhf.rewards.react.static import static_parts
from rlhf.rewards.react.syntax import MAX_CHARACTERS, Syntax, error_free_share, has_jsx_structure, parses

LIST = """\
import { useEffect, useState } from "react";

interface Props { items: string[]; onPick: (item: string) => void }

export default function List({ items, onPick }: Props) {
  const [open, setOpen] = useState(false);
  useEffect(() => {
    if (open) { document.title = "open"; }
  }, [open]);
  if (!items.length) { return <p className="empty">Nothing here, don't worry</p>; }
  return (
    <ul>
      {items.map((item) => (
        <li key={item} onClick={() => onPick(item)}><b>{item}</b></li>
      ))}
      {open && <li>Last</li>}
    </ul>
  );
}
"""


def score(name, completion, **args):
    reward = load_reward(RewardSpec(path=name, args=args))
    return reward(prompts=["p"], completions=[completion], reference=["r"])[0]


# --- heuristic -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "reference", "expected"),
    [
        ("return <a/>", "return <a/>", 1.5),  # all marks, same length
        ("return <a/>", "x" * 22, 1.5 - 0.1 * 11 / 22),
        ("return <a></a>", "x" * 14, 1.0),  # no />
        ("<a/>", "x" * 8, 1.0 - 0.1 * 4 / 8),
        ("x" * 30, "x" * 10, 1.0 - 0.1 * 20 / 10),
        ("", "x" * 7, 0.9),
        ("", "", 1.0),
        ("abcd", "", 1.0 - 0.1 * 4 / 1),
        ("é" * 4, "e" * 4, 1.0),  # characters, not bytes
        ("```\nreturn <a/>\n```", "return <a/>", 1.5 - 0.1 * 8 / 11),  # fences count
        ("return" + "<br/>" * 300, "x" * 1506, 1.5),  # the known hack
    ],
)
def test_heuristic_is_exact(completion, reference, expected):
    rewards = RewardSum.from_specs([RewardSpec(path="react_heuristic")])
    assert rewards(["p"], [completion], {"reference": [reference]}).total == pytest.approx([expected], abs=1e-12)


def test_heuristic_does_not_apply_without_a_reference():
    rewards = RewardSum.from_specs([RewardSpec(path="react_heuristic")])
    assert rewards(["p", "q"], ["c", "c"], {"reference": [None, "c"]}).components == {"react_heuristic": [None, 1.0]}
    with pytest.raises(RewardError, match="needs reference; the data has the columns: none"):
        rewards(["p"], ["c"], {})


def test_heuristic_explains_itself():
    rewards = RewardSum.from_specs([RewardSpec(path="react_heuristic")])
    assert rewards.explain("p", "return <a>", {"reference": "x" * 20}) == (
        "react_heuristic (weight 1): 0.9500\n"
        "  1.0 base, +0.0 JSX marks ('/>' missing), -0.0500 length (10 characters, reference 20)\n"
        "total: 0.9500"
    )


# --- syntax ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [LIST, "const A = () => <br/>;", "<></>", "x", "// only a comment", "let é = '日本';"])
def test_valid_code_parses(code):
    assert parses(code)
    assert error_free_share(code) == 1.0
    assert Syntax(code).error is None


@pytest.mark.parametrize(
    ("code", "rest"),  # the rest begins with the first token that cannot stand there
    [
        ("function A( { return 1 }", "1 }"),
        ("hello world this is prose", "world this is prose"),
        ("const f = (a, b => 3;\nconst y = 2;\n", ";\nconst y = 2;\n"),
        ("function A() { return (<div><p>hi</div>); }", "div>); }"),  # </div> closes <p>
        ("function A() {\n  return (\n    <div>\n    <b/>\n  );\n}\n", "}\n"),  # ");" is still text of <div>
        ("const a = <div>x</span>;", "span>;"),
        ("const a = <><p/></b>;", "b>;"),
        ("const a = <b><p/></>;", "</>;"),
        ("const a = <A.B></A.C>;", "A.C>;"),
        ("const é = <p>日本</p>; ) + 1", ") + 1"),
        ("const a = 'open\nconst b = 1;", "const b = 1;"),
        ("a\0b", "\0b"),
        ("<br/><br/>", ">"),  # read as <br/> less than br, divided by
        ("function A() { return <div>", ""),  # unfinished: fails at the end
        ("/* open", ""),
        ("const a = `${x", ""),
        (LIST[:300], ""),
    ],
)
def test_the_first_error_is_where_no_program_can_go_on(code, rest):
    assert not parses(code)
    assert code[Syntax(code).error :] == rest
    assert error_free_share(code) == pytest.approx((len(code) - len(rest)) / len(code))


@pytest.mark.parametrize("code", ["", " \n\t"])
def test_an_empty_text_does_not_parse(code):
    assert not parses(code)
    assert Syntax(code).error == 0
    assert error_free_share(code) == 0.0


def test_a_text_that_is_too_long_does_not_parse():
    fits = "x;" * (MAX_CHARACTERS // 2)
    assert parses(fits)
    assert not parses(fits + "x")
    assert Syntax(fits + "x").error == MAX_CHARACTERS


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("return <br/>", True),
        ("return <p></p>", True),
        ("return <p>", False),
        ("const A = () => <br/>", False),
        ("return x", False),
        ("", False),
    ],
)
def test_jsx_structure(code, expected):
    assert has_jsx_structure(code) is expected


# --- code fences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("let a;", "let a;"),
        ("```tsx\nlet a;\n```", "let a;\n"),
        ("Sure:\n\n```\nlet a;\n```\nDone.", "let a;\n"),
        ("```bash\nnpm i\n```\nthen\n```jsx\nlet a;\n```\n```tsx\nlet b;\n```", "let a;\n"),
        ("```bash\nnpm i\n```\n```text\nno\n```", "npm i\n"),
        ("```TSX title=a.tsx\r\nlet a;\r\n```", "let a;\r\n"),
        ("Text\n```tsx\nlet a;", "let a;"),  # cut off
        ("let a;\n```", "let a;\n"),  # the prompt opened the fence
        ("let a;\n```\n\n", "let a;\n"),
        ("```tsx", ""),
        ("```", ""),
        ("const a = `\n  ${b}```c`;", "const a = `\n  ${b}```c`;"),
    ],
)
def test_code_is_found_between_fences(completion, code):
    assert code_of(completion) == code


def test_spans_count_from_the_start_of_the_completion():
    completion = "Here:\n```tsx\nlet a = );\n```"
    assert score("react_parses", completion, error_penalty=-0.3) == SpanReward(0.0, (Span(21, 22, -0.3),))
    assert completion[21] == ")"


# --- parses and error_free as rewards --------------------------------------------------------------------------


def test_react_parses():
    assert score("react_parses", LIST) == 1.0
    assert score("react_parses", "let a = );") == 0.0
    assert score("react_parses", LIST, error_penalty=-0.3) == 1.0


def test_the_penalty_for_an_unfinished_text_is_on_its_last_character():
    assert score("react_parses", "let a = (", error_penalty=-0.3) == SpanReward(0.0, (Span(8, 9, -0.3),))
    assert score("react_parses", "", error_penalty=-0.3) == 0.0
    assert score("react_parses", "  ", error_penalty=-0.3) == SpanReward(0.0, (Span(0, 1, -0.3),))


def test_react_error_free():
    assert score("react_error_free", "let a = );") == 0.8
    assert score("react_error_free", "let a = (") == 1.0
    assert score("react_error_free", "```tsx\nlet a = );\n```") == pytest.approx(8 / 11)


def test_syntax_rewards_explain_themselves():
    reward = load_reward(RewardSpec(path="react_error_free"))
    assert reward.explain("p", "let a;") == "parses as TSX; 100% of 6 characters before the first error"
    assert reward.explain("p", "ok:\n```\nlet a;\nlet b = );\n```") == (
        "does not parse: unexpected ');\\n```' in line 4; 83% of 18 characters before the first error"
    )
    assert reward.explain("p", "let a = (").startswith("does not parse: ends too early, in line 1")


# --- static ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (LIST, 1.0),
        ("export const A = () => <br/>;", 1.0),
        ("export default () => <br/>", 1.0),
        ("const A = () => <br/>; export { A };", 1.0),
        ("const A = () => <br/>; const B = React.memo(A); export default B;", 1.0),
        ("export const A = forwardRef<P>((props, ref) => <input ref={ref} />);", 1.0),
        ("export default memo(function inner() { return <br/>; })", 1.0),
        ("class A extends React.Component<P> { render() { return <br/>; } }\nmodule.exports = A;", 1.0),
        ("const A = () => <br/>;", 0.85),  # not exported
        ("const A = () => <br/>; export const b = 1;", 0.85),
        ("function a() { return <br/>; } export default a;", 0.40),  # <a> would be a host tag
        ("const A = () => 1; export default A; const b = <br/>;", 0.40),
        ("function A() { const b = <br/>; } export default A;", 0.40),  # returns nothing
        ("const Rows = xs.map((x) => <li/>);", 0.40),  # elements, not a component
        ("<p>Hi</p>", 0.40),
        ("export default function A() { return createElement('p'); }", 0.0),  # no JSX
        ("const x = 1;", 0.0),
        ("// return <A/>", 0.0),
        ("export default function A() { return <br/>", 0.60),  # only "}" is missing
        ("export default function A() { return <div><p>Hi", 0.0),  # cut off within JSX: nothing is recovered
        ("<br/>" * 300, 0.0),
        ("I cannot help with that.", 0.0),
        ("", 0.0),
        (LIST + "\n)", 0.60),  # what parses of it is complete
        (LIST.replace("</b>", ""), 0.60),  # one tag unclosed: the rest is recovered
    ],
)
def test_static_score(code, expected):
    assert score("react_static", code) == expected
    assert score("react_static", f"Here it is:\n```tsx\n{code}\n```\n") == expected


@pytest.mark.parametrize(
    "body",
    [
        "if (p.a) { useState(0); } return <br/>;",
        "p.a && useState(0); return <br/>;",
        "const s = p.a ? useState(0) : 1; return <br/>;",
        "for (const a of p.b) { useState(a); } return <br/>;",
        "while (p.a) useState(0); return <br/>;",
        "try { useState(0); } catch { } return <br/>;",
        "switch (p.a) { case 1: useState(0); } return <br/>;",
        "if (p.a) return null; const [s] = React.useState(0); return <br/>;",
        "useEffect(() => { useState(0); }); return <br/>;",
        "const load = () => useState(0); return <br/>;",
        "return <p onClick={() => useState(0)}/>;",
    ],
)
def test_a_misplaced_hook_costs_a_tenth(body):
    assert score("react_static", f"export function A(p) {{ {body} }}") == 0.90


@pytest.mark.parametrize(
    "code",
    [
        "export function A() { const a = useA() ? 1 : 2; return <br/>; }",
        "export function A() { const a = useA() && 2; return <br/>; }",
        "function useB() { return useState(0); } export const A = () => { useB(); return <br/>; };",
        "export default function () { useState(0); return <br/>; }",
        "export const A = memo(() => { useState(0); return <br/>; });",
        "export function A() { const f = () => { return 1; }; useState(f); return <br/>; }",
        "export function A() { user(); if (a) { usedUp(); } return <br/>; }",
    ],
)
def test_a_well_placed_hook_costs_nothing(code):
    assert score("react_static", code) == 1.0


def test_a_hook_outside_any_function_is_misplaced():
    assert score("react_static", "const s = useState(0); export const A = () => <br/>;") == 0.90


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("xs.map((x) => <li key={x}>{x}</li>)", 1.0),
        ("xs.map((x) => { const icon = <i/>; return <li key={x}>{icon}</li>; })", 1.0),
        ("xs.map((x) => <li key={x}><b/><i/></li>)", 1.0),
        ("xs.map((x) => x > 1 && <li key={x}/>)", 1.0),
        ("xs.map((x) => <React.Fragment key={x}><b/></React.Fragment>)", 1.0),
        ("xs.filter((x) => x).map((x) => <li key={x}/>)", 1.0),
        ("React.Children.map(xs, (x) => <li>{x}</li>)", 1.0),
        ("show((x) => <li>{x}</li>)", 1.0),
        ("xs.map((x) => <li>{x}</li>)", 0.95),
        ("xs.map((x) => <li id={x}/>)", 0.95),
        ("xs.map((x) => <><b key={x}/></>)", 0.95),
        ("xs.map((x) => { if (x) { return <li/>; } return <li key={x}/>; })", 0.95),
        ("xs.map((x) => x ? <li key={x}/> : <li/>)", 0.95),
        ("xs.map(function (x) { return <li/>; })", 0.95),
        ("Array.from({ length: 3 }, (_, i) => <li>{i}</li>)", 0.95),
    ],
)
def test_list_items_without_key_cost_a_twentieth(expression, expected):
    assert score("react_static", f"export function A({{ xs }}) {{ return <ul>{{{expression}}}</ul>; }}") == expected


def test_static_explains_itself():
    code = "function A() { if (a) { useState(0); } return <ul>{xs.map((x) => <li/>)}</ul>; }"
    assert load_reward(RewardSpec(path="react_static")).explain("p", code).splitlines() == [
        "0.40 of 0.40: parses as TSX",
        "0.30 of 0.30: a component is defined",
        "0.00 of 0.15: not exported",
        "0.00 of 0.10: hooks misplaced: useState",
        "0.00 of 0.05: 1 list items without key",
    ]


def test_static_carries_the_error_penalty():
    assert score("react_static", "const A = () => <a></b>;", error_penalty=-0.2) == SpanReward(
        0.45,
        (Span(21, 22, -0.2),),  # a component is seen: .30 + .10 + .05
    )


@pytest.mark.parametrize(
    "code",
    [
        "<div>" * 20_000,
        "<div>" * 4_000 + "</div>" * 4_000,
        "(" * 50_000,
        "<" * 1_000_000,
        "a&&" * 16_000 + "b",
        "const A=()=>" * 4_000 + "<p/>",
        "return " + "<br/>" * 9_600,  # would take minutes to repair
        "xs.map(x=>" * 5_000,
        "if(a)" * 9_000,
        "`${" * 16_000,
        "\0" * 1_000,
        "\ud800" * 1_000,
        "\ufeffconst A = 1",
    ],
    ids=lambda code: repr(code[:12]),
)
def test_hostile_text_gets_a_score(code):
    result = score("react_static", code, error_penalty=-0.1)
    value = result.score if isinstance(result, SpanReward) else result
    assert 0.0 <= value <= 0.6


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *"<>/(){}=.;:,`'\"$ \n?&|é\0",
                "A",
                "key",
                "map",
                "return",
                "=>",
                "useX",
                "if",
                "export",
                "function",
                "const",
                "class",
                "default",
                "div",
                "```",
                "tsx",
            ]
        )
    ).map("".join)
)
def test_any_text_gets_a_score_and_spans_inside_it(text):
    names = ["react_static", "react_parses"]
    specs = [RewardSpec(path=name, args={"error_penalty": -0.1}) for name in names]
    scores = RewardSum.from_specs([*specs, RewardSpec(path="react_error_free")])(["p"], [text], {})
    assert all(0.0 <= score[0] <= 1.0 for score in scores.components.values())
    assert static_parts(text).syntax.parses == (Syntax(text).error is None)
    start, end = code_range(text)
    assert 0 <= start <= end <= len(text)


# --- structure -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "expected", "explanation"),
    [
        ("return <br/>", 1.0, "return, < and a closing tag found"),
        ("return <p></p>", 1.0, "return, < and a closing tag found"),
        ("```tsx\nreturn 1\n```\n<br/>", 0.0, "missing: <, /> or </"),  # only the code counts
        ("const A = () => <br>", 0.0, "missing: return, /> or </"),
        ("", 0.0, "missing: return, <, /> or </"),
    ],
)
def test_react_structure(completion, expected, explanation):
    assert score("react_structure", completion) == expected
    assert load_reward(RewardSpec(path="react_structure")).explain("p", completion) == explanation


def test_the_first_error_is_found_where_repairing_the_text_would_never_end():
    code = (
        "export default function Bar({ value = 8055 }) {\n  return (\n    <div>\n"
        '      <h3000000bar" style={{ width: max: 800000000%</hBar at members.</p>\n    </div>\n  );\n}'
    )
    assert Syntax(code).error == code.index('" style')
