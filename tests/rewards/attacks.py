"""Completions that attack the sandbox, each with what must come of it.

An expectation is exact HTML, or one of the words below.
"""

# ruff: noqa: E501 - an attack is read as one line

FAILS = "fails"  # no HTML, for whatever reason
TIMES_OUT = "times out"

PAGE = "export default () => <p>page</p>;"
OK = "<p>page</p>"
FORGED = "'+0:<h1>forged</h1>'"

LOOPS = {
    "in the module": ("while (true) {}", TIMES_OUT),
    "in the render": ("export default function A() { for (;;) {} }", TIMES_OUT),
    "in a class": (
        "import React from 'react'; export default class A extends React.Component { render() { for (;;); } }",
        TIMES_OUT,
    ),
    "in a hook": (
        "import { useMemo } from 'react'; export default () => <p>{useMemo(() => { for (;;); }, [])}</p>",
        TIMES_OUT,
    ),
    "in a promise": (f"Promise.resolve().then(() => {{ for (;;); }}); {PAGE}", OK),
    "in a microtask": (f"queueMicrotask(() => {{ for (;;); }}); {PAGE}", OK),
    "in a timer": (f"setTimeout(() => {{ for (;;); }}, 0); setInterval(() => {{ for (;;); }}); {PAGE}", OK),
    "after await": (f"(async () => {{ await 0; for (;;); }})(); {PAGE}", OK),
    "in a finalizer": (f"new FinalizationRegistry(() => {{ for (;;); }}).register({{}}, 1); {PAGE}", OK),
    "in an effect": (
        "import { useEffect } from 'react'; export default function A() { useEffect(() => { for (;;); }); return <p>page</p>; }",
        OK,
    ),
    "in a getter of the exports": ("Object.defineProperty(exports, 'default', { get() { for (;;); } });", TIMES_OUT),
    "in a proxy for the exports": ("module.exports = new Proxy({}, { ownKeys() { for (;;); } });", TIMES_OUT),
    "in the text of an error": ("throw { get message() { for (;;); } };", TIMES_OUT),
    "in toString of a child": ("export default () => <p title={{ toString() { for (;;); } }} />;", TIMES_OUT),
    "that catches all": ("while (true) { try { while (true) {} } catch {} }", TIMES_OUT),
    "in finally": ("try { for (;;); } finally { for (;;); }", TIMES_OUT),
    "in a generator": ("const all = [...(function* () { for (;;) yield 1; })()];", FAILS),
    "of state": (
        "import { useState } from 'react'; export default function A() { const [n, set] = useState(0); set(n + 1); return <p/>; }",
        FAILS,
    ),
    "of components": ("const A = () => <A />; export default A;", FAILS),
    "of components that branch": ("const A = () => <><A /><A /></>; export default A;", FAILS),
    "of calls": ("const f = () => f() + 1; f();", FAILS),
    "of calls that catch": ("function f() { try { f(); } catch { f(); } } f();", FAILS),
    "inside sort": ("[].sort.call({ length: 2 ** 32 });", TIMES_OUT),
    "inside indexOf": ("Array.prototype.indexOf.call({ length: 2 ** 52 }, 1);", TIMES_OUT),
    "inside a regex": ("/(a+)+$/.test('a'.repeat(60) + 'b');", TIMES_OUT),
    "inside a regex in the render": (
        "export default () => <p>{/^(([a-z])+.)+[A-Z]/.test('a'.repeat(60))}</p>;",
        TIMES_OUT,
    ),
    "inside a replacement": ("'a'.repeat(1e5).replace(/(a*)*b/g, '');", TIMES_OUT),
}

MEMORY = {
    "array": ("const all = []; for (;;) all.push(new Array(1000).fill(1));", FAILS),
    "string that doubles": ("let s = 'xy'; for (;;) s += s;", FAILS),
    "string at once": ("'x'.repeat(2 ** 29);", FAILS),
    "buffer": ("new ArrayBuffer(2 ** 33);", FAILS),
    "buffers": ("const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1));", FAILS),
    "map": ("const all = new Map(); for (let i = 0; ; i++) all.set(i, { i });", FAILS),
    "closures": ("let f = () => 0; for (;;) { const g = f; f = () => g; }", FAILS),
    "shared memory": ("const all = []; for (;;) all.push(new SharedArrayBuffer(1 << 24));", FAILS),
    "big integer": ("let n = 2n; for (;;) n *= n;", FAILS),
    "join": ("new Array(2 ** 32 - 1).join('x');", FAILS),
    "JSON": ("JSON.stringify(Array(1e4).fill('x'.repeat(1e4)));", FAILS),
    "symbols": ("const all = []; for (;;) all.push(Symbol('x'.repeat(1e4) + all.length));", FAILS),
    "children": ("export default () => <p>{Array(1e7).fill(<b />)}</p>;", FAILS),
    "50 MB of text": ("export default () => <p>{'x'.repeat(5e7)}</p>;", FAILS),
    "50 MB of tags": ("export default () => <p dangerouslySetInnerHTML={{ __html: '<b></b>'.repeat(7e6) }} />;", FAILS),
    "300 kB of text": ("export default () => <p>{'x'.repeat(3e5)}</p>;", FAILS),
    "an error of 10 MB": ("throw new Error('x'.repeat(1e7));", FAILS),
}

TEXT = {
    "nothing": ("", FAILS),
    "1 MB of <": ("<" * 1_000_000, FAILS),
    "40 kB of <": ("<" * 40_000, FAILS),
    "40 kB of (": ("(" * 40_000, FAILS),
    "40 kB of {": ("{" * 40_000, FAILS),
    "templates in templates": ("`${" * 13_000, FAILS),
    "deep elements": ("export default () => " + "<b>" * 6_000 + "</b>" * 6_000, FAILS),
    "deep elements made in a loop": (
        "let e = <b />; for (let i = 0; i < 1e5; i++) e = <i>{e}</i>; export default () => e;",
        FAILS,
    ),
    "deep arrays made in a loop": (
        "let e = <b />; for (let i = 0; i < 1e5; i++) e = [e]; export default () => <p>{e}</p>;",
        FAILS,
    ),
    "deep objects as props": (
        "let e = {}; for (let i = 0; i < 1e5; i++) e = { e }; export default () => <p style={e}>page</p>;",
        '<p style="e:[object Object]">page</p>',
    ),
    "NUL in the code": ("export default () => <p>a\0b</p>;", "<p>a\N{REPLACEMENT CHARACTER}b</p>"),
    "NUL from the code": ("export default () => <p>{'a\\0b'}</p>;", "<p>a\N{REPLACEMENT CHARACTER}b</p>"),
    "half a surrogate pair": ("export default () => <p>\ud800</p>;", "<p>?</p>"),
    "half a surrogate pair from the code": (
        "export default () => <p>{'\\ud800'}</p>;",
        "<p>\N{REPLACEMENT CHARACTER}</p>",
    ),
    "invalid UTF-8": (b"export default () => <p>\xff\xc0</p>;".decode("utf-8", "surrogateescape"), "<p>??</p>"),
    "byte order mark": ("\ufeffexport default () => <p>page</p>;", OK),
    "line separators": ("export default () => <p>page</p>;\u2028\u2029//", OK),
    "an open comment": (f"{PAGE} /*", FAILS),
    "an end of the function": (f"}}); globalThis.escaped = 1; (function () {{ {PAGE}", FAILS),
    "a hashbang": ("#!/bin/sh\nexport default () => <p>page</p>;", FAILS),
    "a name like __proto__": ("export const __proto__ = 1; export const A = () => <p>page</p>;", OK),
    "script in the page": (
        "export default () => <script>{'</script><b>'}</script>;",
        "<script>&lt;/script&gt;&lt;b&gt;</script>",
    ),
}

# Each runs, and then renders its own page as if nothing had happened, or fails; it must never show another page.
HOST = {
    "require fs": ("export default () => <p>{require('fs').readFileSync('/etc/passwd')}</p>;", "<p></p>"),
    "import fs": (
        "import fs from 'node:fs'; export default () => <p>{fs.readFileSync('/etc/passwd', 'utf8')}</p>;",
        "<p></p>",
    ),
    "import child_process": (
        "import { execSync } from 'child_process'; execSync('touch /tmp/pwned'); export default () => <p>page</p>;",
        OK,
    ),
    "import()": (f"import('fs').then((fs) => fs.writeFileSync('/tmp/pwned', '')); {PAGE}", OK),
    "import() unseen by the transpiler": (f"eval(\"import('fs')\").catch(() => 0); {PAGE}", OK),
    "process": ("process.mainModule.require('child_process').execSync('id');", FAILS),
    "process binding": ("process.binding('fs');", FAILS),
    "process by constructor": (
        "export default () => <p>{typeof this?.constructor.constructor('return process.pid')()}</p>;",
        "<p>undefined</p>",
    ),
    "global object": (
        "export default () => <p>{[typeof std, typeof os, typeof Deno, typeof Bun, typeof WebAssembly].join()}</p>;",
        "<p>undefined,undefined,undefined,undefined,undefined</p>",
    ),
    "fetch": (f"fetch('http://127.0.0.1/').then((r) => r.text()); {PAGE}", OK),
    "fetch awaited": (
        "export default async function A() { await fetch('http://127.0.0.1/'); return <p>page</p>; }",
        FAILS,
    ),
    "XMLHttpRequest": ("new XMLHttpRequest().open('GET', '/');", FAILS),
    "WebSocket": ("new WebSocket('ws://127.0.0.1');", FAILS),
    "Worker": ("new Worker('data:,for(;;);');", FAILS),
    "Atomics.wait": ("Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);", FAILS),
    "eval": ("export default () => <p>{eval('1 + 1')}</p>;", "<p>2</p>"),
    "Function": (
        "export default () => <p>{typeof new Function('return globalThis')().process.pid}</p>;",
        "<p>undefined</p>",
    ),
    "debugger": (f"debugger; {PAGE}", OK),
}

FORGERY = {
    "exported text": (f"module.exports = {FORGED};", FAILS),
    "exported default text": (f"export default {FORGED};", FAILS),
    "returned text": (f"export default () => {FORGED};", "+0:&lt;h1&gt;forged&lt;/h1&gt;"),
    "returned from the module": (f"return {FORGED};", FAILS),
    "returned as list of components": ("return { length: 2 ** 53, get 0() { return " + FORGED + "; } };", FAILS),
    "thrown text": (f"throw {FORGED};", FAILS),
    "thrown object": (f"throw {{ name: {FORGED}, message: {FORGED} }};", FAILS),
    "thrown null": ("throw null;", FAILS),
    "thrown proxy": (f"throw new Proxy({{}}, {{ get: () => () => {FORGED} }});", FAILS),
    "thrown in toString": ("throw { get name() { throw { get name() { throw 1; } }; } };", FAILS),
    "exported object that is text": (
        f"export default {{ toString: () => {FORGED}, $$typeof: Symbol.for('react.memo') }};",
        FAILS,
    ),
    "component that is a proxy": (f"export default new Proxy(() => <p>page</p>, {{ get: () => {FORGED} }});", OK),
    "caller": ("export default function A() { return <p>{String(A.caller)}</p>; }", FAILS),
    "callee": ("export default function A() { return <p>{String(arguments.callee.caller)}</p>; }", FAILS),
    "call sites": (
        "Error.prepareStackTrace = (_, sites) => sites.map((site) => site.getFunction()); new Error().stack[1]();",
        FAILS,
    ),
    "own server renderer": (
        "import { renderToStaticMarkup } from 'react-dom/server'; export default () => <p>{renderToStaticMarkup(<b />)}</p>;",
        "<p></p>",
    ),
    "element of its own making": (
        "export default () => ({ $$typeof: Symbol.for('react.element'), type: 'p', props: { children: 'page' }, key: null, ref: null, _owner: null });",
        OK,
    ),
    "counter of stand-ins": (
        "import { Card } from './ui'; globalThis.standIns = -1; export default () => <Card>text</Card>;",
        "text",
    ),
}

# Everything that the harness and React use, replaced by something that answers for them.
FORGED_GLOBALS = [
    "Object", "Function", "Array", "String", "Symbol", "Proxy", "Reflect", "RegExp", "Set", "Map", "Error", "Date",
    "JSON", "Math", "Promise", "globalThis", "undefined",
    "Object.prototype.toString", "Object.prototype.valueOf", "Object.prototype.hasOwnProperty", "Object.keys",
    "Object.assign", "Object.is", "Object.defineProperty", "Object.prototype.then", "Object.prototype.exports",
    "Object.prototype.locals", "Object.prototype.default", "Object.prototype.html", "Object.prototype[0]",
    "Function.prototype.call", "Function.prototype.apply", "Function.prototype.bind", "Function.prototype.toString",
    "Array.prototype.join", "Array.prototype.push", "Array.prototype.map", "Array.prototype.concat",
    "Array.prototype[0]", "Array.prototype[Symbol.iterator]", "Array.isArray",
    "String.prototype.slice", "String.prototype.toWellFormed", "String.prototype.replaceAll", "String.prototype.replace",
    "String.prototype.concat", "String.prototype.toString", "String.prototype.valueOf", "String.prototype[Symbol.toPrimitive]",
    "RegExp.prototype.test", "RegExp.prototype.exec", "RegExp.prototype[Symbol.replace]", "Reflect.apply", "Reflect.ownKeys",
    "Symbol.for", "Symbol.prototype.toString", "Set.prototype.add", "Map.prototype.get", "Error.prototype.toString",
    "Error.prototype.message", "Number.prototype.toString",
]  # fmt: skip


# React itself uses these, so that replacing one changes the page; a completion may write any page of its own anyway.
CHANGES_ITS_PAGE = {"Object.prototype.hasOwnProperty", "Function.prototype.call", "Map.prototype.get"}


def forgeries_of_globals() -> dict[str, tuple[str, bool]]:
    """For each name, two completions that replace it, and whether the component then renders or throws."""
    made = {}
    for name in FORGED_GLOBALS:
        code = f"try {{ {name} = function () {{ return {FORGED}; }}; }} catch {{}}\nexport default () =>"
        made[f"{name}, then throws"] = (f"{code} {{ throw 1; }};", False)
        made[f"{name}, then renders"] = (f"{code} <p>page</p>;", True)
    return made


GROUPS = {"loop": LOOPS, "memory": MEMORY, "text": TEXT, "host": HOST, "forgery": FORGERY}
ATTACKS = {f"{group}: {name}": attack for group, attacks in GROUPS.items() for name, attack in attacks.items()}
