// protocol.js WASM_EXEC PROGRAM MODEL: what the worker does with the program, under node. It prints what came, as JSON.
"use strict";
const fs = require("fs"), path = require("path");
const [, , wasmExec, program, model] = process.argv;
require(wasmExec);

const message = promise => promise.then(() => "no error", error => error.message);

(async () => {
  const go = new Go();
  const {instance} = await WebAssembly.instantiate(fs.readFileSync(program), go.importObject);
  go.run(instance);
  const options = {prompt: "Once upon a time", seed: 7, maxTokens: 24}, ignore = () => {}, seen = {};
  const write = async more => {
    let text = "", calls = 0, tokens = 0;
    const end = await photon.generate({...options, ...more}, t => { text += t.text; calls++; tokens = t.tokens; });
    return {text, calls, last: tokens, why: end.why, tokens: end.tokens, written: end.written, firstToken: end.firstToken, rate: end.rate};
  };
  seen.unloaded = await message(photon.generate(options, ignore));
  seen.empty = await message(photon.load({}));
  const files = {};
  for (const name of ["config.json", "tokenizer.json", "model.safetensors"]) {
    files[name] = new Uint8Array(fs.readFileSync(path.join(model, name)));
  }
  seen.cut = await message(photon.load({...files, "model.safetensors": files["model.safetensors"].subarray(0, 1e6)}));
  seen.loaded = await photon.load(files);
  seen.hot = await message(photon.generate({...options, temperature: -1}, ignore));
  seen.word = await message(photon.generate({...options, seed: "one"}, ignore));
  seen.nothing = await message(photon.generate({...options, prompt: undefined}, ignore));
  seen.nan = await message(photon.generate({...options, maxTokens: NaN}, ignore));
  seen.thrown = await message(photon.generate(options, () => { throw new Error("mine"); }));
  seen.none = await write({maxTokens: 0});
  seen.first = await write({});
  seen.again = await write({});
  seen.other = await write({seed: 8});
  seen.half = await write({maxTokens: 12});
  seen.rest = await write({maxTokens: 12, more: true});
  const endless = photon.generate({...options, maxTokens: 100000}, ignore);
  seen.reloaded = await message(photon.load(files));
  seen.busy = await message(photon.generate(options, ignore));
  setTimeout(() => { seen.pressed = Date.now(); photon.stop(); }, 300);
  seen.stopped = (await endless).why;
  seen.stopTook = Date.now() - seen.pressed;
  const prompt = write({prompt: "The cat sat on the mat. ".repeat(5000)}); // stopped before its first token
  setTimeout(photon.stop, 300);
  seen.prompt = await prompt;
  seen.after = await write({});
  seen.state = [0, 304, 4096, 32768].map(n => photon.stateBytes(n));
  console.log(JSON.stringify(seen));
  process.exit(0);
})().catch(error => { console.error(error); process.exit(1); });
