// Evaluated in a fresh context together with react.js, as a function of what that gives. Returns the only
// function that the worker calls: render(code), where code is what transpile.js made of a completion.
//
// render returns a primitive string and nothing else, "+<stand-ins>:<html>" or "-<reason>". The completion runs
// in this context and may change any global, so whatever is needed after it has started is captured before it:
// what follows `run` uses operators, locals and captured functions, and never a method or a global by name. It has
// no template literals either: the engine builds these with String.prototype.concat.
(library) => {
  "use strict";
  const { React, runtime, renderToStaticMarkup } = library;
  const MAX_HTML = 200000;
  const MAX_CANDIDATES = 8;

  const { apply, ownKeys } = Reflect;
  const { Function: FunctionConstructor, Symbol: { for: symbolFor, iterator, toPrimitive } } = globalThis;
  const { toWellFormed, slice, replaceAll } = String.prototype;
  const { test } = RegExp.prototype;
  const capitalized = /^[A-Z]/;
  const startsUpperCase = (name) => typeof name === "string" && apply(test, capitalized, [name]);

  // --- Stand-ins: one inert value for all that the completion expects from elsewhere ------------------------

  // Callable, iterable, of two items, an empty text, the number 1; as a child or attribute it renders nothing.
  const blank = new Proxy(() => blank, {
    get: (_, name) => {
      if (name === toPrimitive) return (hint) => (hint === "number" ? 1 : "");
      if (name === iterator) return function* () { yield blank; yield blank; };
      if (name === "map" || name === "flatMap") return (make) => [make(blank, 0, blank)];
      if (name === "reduce") return (_, initial) => initial;
      if (name === "length") return 1;
      return typeof name === "symbol" || name === "then" || name === "prototype" ? undefined : blank;
    },
    set: () => true,
    apply: (_, self, given) => { // withRouter(App) is App
      for (let i = 0; i < given.length; i++) if (isNamedComponent(given[i])) return given[i];
      return blank;
    },
    construct: () => blank,
  });
  const isNamedComponent = (value) => typeof value === "function" && value !== blank && startsUpperCase(value.name);
  const blankProps = new Proxy({}, { get: (_, name) => (name === "children" ? undefined : blank) });

  let standIns = 0; // elements made of what was imported from elsewhere
  const StandIn = ({ children }) => (typeof children === "function" ? children(blank) : children);
  for (const [owner, name] of [[React, "createElement"], [runtime, "jsx"], [runtime, "jsxs"]]) {
    const create = owner[name];
    owner[name] = (type, props, ...rest) => {
      if (type === blank) standIns += 1;
      const given = props?.style === blank ? { ...props, style: undefined } : props; // React accepts only objects
      return create(type === blank ? StandIn : type, given, ...rest);
    };
  }

  const modules = {
    __proto__: null,
    react: React,
    "react/jsx-runtime": runtime,
    "react-dom": { __proto__: null, createPortal: (children) => children, flushSync: (run) => run(), createRoot: blank },
  };
  const require = (name) => modules[name] ?? blank;

  // --- What a browser offers, without effect; and nothing that differs from run to run ----------------------

  const never = () => new Promise(() => {});
  const nothing = () => undefined;
  const storage = () => ({ getItem: () => null, setItem: nothing, removeItem: nothing, clear: nothing });
  const RealDate = Date;
  const NOW = RealDate.UTC(2025, 0, 15, 12);
  class FixedDate extends RealDate {
    constructor(...parts) { super(...(parts.length ? parts : [NOW])); }
    static now() { return NOW; }
  }
  class Format {
    format(value) { return `${value}`; }
  }
  Object.assign(globalThis, {
    window: globalThis,
    document: blank,
    navigator: blank,
    location: blank,
    history: blank,
    localStorage: storage(),
    sessionStorage: storage(),
    console: { log: nothing, info: nothing, warn: nothing, error: nothing, debug: nothing },
    fetch: never,
    matchMedia: () => ({ matches: false, addEventListener: nothing, removeEventListener: nothing }),
    process: { env: {} },
    Date: FixedDate,
    Intl: { NumberFormat: Format, DateTimeFormat: Format },
  });
  for (const name of ["addEventListener", "removeEventListener", "setTimeout", "clearTimeout", "setInterval",
    "clearInterval", "requestAnimationFrame", "cancelAnimationFrame", "alert"]) {
    globalThis[name] = nothing;
  }
  Math.random = () => 0.5;
  Object.defineProperty(Error, "prepareStackTrace", { value: undefined }); // call sites would hand out our functions

  // --- Running a completion ---------------------------------------------------------------------------------

  const REACT_TYPES = [symbolFor("react.memo"), symbolFor("react.forward_ref"), symbolFor("react.lazy")];
  const ELEMENT = symbolFor("react.element");
  const isComponent = (value) =>
    (typeof value === "function" && value !== blank) || (typeof value === "object" && value !== null &&
      (value.$$typeof === REACT_TYPES[0] || value.$$typeof === REACT_TYPES[1] || value.$$typeof === REACT_TYPES[2]));
  const isElement = (value) => typeof value === "object" && value !== null && value.$$typeof === ELEMENT;
  const element = (type, props) => ({ __proto__: null, $$typeof: ELEMENT, type, key: null, ref: null, props, _owner: null });

  /** Runs the module. Returns its exports and its top-level capitalized names with their values. */
  function run(code) {
    const declarations = [...code.matchAll(/\b(?:function|const|let|var|class)\s+([A-Z][\w$]*)/g)];
    const names = [...new Set(declarations.map((match) => match[1]))]; // nested ones are undefined at the end
    const values = names.map((name) => `typeof ${name} === "undefined" ? undefined : ${name}`);
    const main = new FunctionConstructor("require", "module", "exports", `${code}\n;return [${values}]`);
    const module = { __proto__: null, exports: {} };
    const locals = main(require, module, module.exports);
    return { __proto__: null, exports: module.exports, locals };
  }

  /** What to render: the default export, else all exported components, else all that are defined. */
  function candidates({ exports, locals }) {
    if (isComponent(exports) || isElement(exports)) return [exports];
    if (isComponent(exports.default) || isElement(exports.default)) return [exports.default];
    const exported = [];
    const names = ownKeys(exports);
    for (let i = 0; i < names.length && exported.length < MAX_CANDIDATES; i++) {
      const value = exports[names[i]];
      if (startsUpperCase(names[i]) && isComponent(value)) exported[exported.length] = value;
    }
    if (exported.length || typeof locals !== "object" || locals === null) return exported;
    const defined = [];
    for (let i = 0; i < locals.length && defined.length < MAX_CANDIDATES; i++) {
      if (isComponent(locals[i])) defined[defined.length] = locals[i];
    }
    return defined;
  }

  /** The longest HTML that a candidate renders to: without props, or else with stand-ins for them. */
  function best(chosen) {
    let html, failure, used = 0;
    for (let i = 0; i < chosen.length; i++) {
      for (let attempt = 0; attempt < 2; attempt++) {
        const before = standIns;
        try {
          const root = isElement(chosen[i]) ? chosen[i] : element(chosen[i], attempt ? blankProps : {});
          const rendered = renderToStaticMarkup(root);
          if (typeof rendered === "string" && (html === undefined || rendered.length > html.length)) {
            html = rendered;
            used = standIns - before;
          }
          if (rendered !== "") break;
        } catch (error) {
          failure ??= reason(error);
        }
      }
    }
    return html === undefined ? "-" + (failure ?? "no component is defined") : report(html, used);
  }

  const report = (html, used) =>
    html.length > MAX_HTML
      ? "-renders " + html.length + " characters, more than " + MAX_HTML
      : "+" + used + ":" + html;

  function reason(error) {
    try {
      const text = typeof error === "object" && error !== null ? error.name + ": " + error.message : "" + error;
      return apply(slice, text, [0, 300]);
    } catch {
      return "threw something that has no text";
    }
  }

  /** A flat string without lone surrogates or NUL, which the binding does not take. */
  const clean = (text) => apply(toWellFormed, apply(replaceAll, text, ["\0", "\uFFFD"]), []);

  return (code) => {
    try {
      return clean(best(candidates(run(code))));
    } catch (error) {
      return clean("-" + reason(error));
    }
  };
}
