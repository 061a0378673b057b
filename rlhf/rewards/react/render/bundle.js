// Run by `rlhf setup-render` with Node: packs what the sandbox loads into two self-contained scripts.
//
//     node bundle.js <folder with node_modules> <output folder>
//
// transpile.js is an expression, a function from TSX to JavaScript (sucrase). react.js is an expression, an
// object with React, its JSX runtime and renderToStaticMarkup. Neither refers to anything outside itself.
"use strict";

const fs = require("fs");
const path = require("path");
const { createRequire } = require("module");

const [source, output] = process.argv.slice(2);
const installed = (file) => path.resolve(source, "node_modules", file);
const REACT = installed("react/cjs/react.production.min.js"); // "react" itself would pick the development build

const TRANSPILE = `
return (code) => sucrase.transform(code, {
  transforms: ["typescript", "jsx", "imports"],
  jsxRuntime: "automatic",
  production: true,
}).code.toWellFormed();`;
const RENDER = `return { React: react, runtime, renderToStaticMarkup: server.renderToStaticMarkup };`;

write("transpile.js", pack({ sucrase: installed("sucrase/dist/index.js") }, TRANSPILE));
write("react.js", pack({
  react: REACT,
  runtime: installed("react/cjs/react-jsx-runtime.production.min.js"),
  server: installed("react-dom/cjs/react-dom-server-legacy.browser.production.min.js"),
}, RENDER));

/** An expression: the CommonJS modules `entries` with all that they require, then the statement `body`. */
function pack(entries, body) {
  const files = new Map(); // file -> its source, with each require("x") made absolute
  const pending = Object.values(entries);
  while (pending.length) {
    const file = pending.pop();
    if (files.has(file)) continue;
    const resolveHere = createRequire(file).resolve;
    files.set(file, fs.readFileSync(file, "utf8").replace(/\brequire\((['"])([^'"]+)\1\)/g, (call, _, name) => {
      let target;
      try {
        target = name === "react" ? REACT : resolveHere(name);
      } catch {
        return call; // only looks like one: code that sucrase may write, in a string
      }
      pending.push(target);
      return `require(${JSON.stringify(target)})`;
    }));
  }
  const modules = [...files].map(([file, text]) => `${JSON.stringify(file)}(module, exports, require) {${text}\n}`);
  const names = Object.entries(entries).map(([name, file]) => `const ${name} = require(${JSON.stringify(file)});`);
  const packed = `(() => {
const modules = {${modules.join(",\n")}};
const loaded = {};
const require = (file) => {
  if (!loaded[file]) modules[file](loaded[file] = { exports: {} }, loaded[file].exports, require);
  return loaded[file].exports;
};
${names.join("\n")}
${body}
})()`;
  return packed.replaceAll(installed("") + path.sep, ""); // the same wherever it is built
}

function write(name, text) {
  fs.writeFileSync(path.join(output, name), text + "\n");
}
