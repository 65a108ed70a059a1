// Makes small tokenizer.json files of several kinds, and what Hugging Face's own JavaScript makes of some texts with them.
//
//     npm install @huggingface/tokenizers@0.2.0 && node oracle.mjs FOLDER [TEXTS [SEED]]      writes KIND.json and KIND.cases.json for each kind
//     node oracle.mjs -check TOKENIZER.json TEXTS                                             prints the cases of a given tokenizer
//
// With a SEED of 2 or more texts are other ones, and some are characters of all planes or bytes, at random.
//
// Where the JavaScript differs from the Rust library, which photon follows, texts leave it out: U+0085 and U+FEFF, which it counts as white space the other
// way round, and for Digits the numbers outside ASCII, which it does not take for digits.
import { readFileSync, writeFileSync } from 'node:fs';
import { Tokenizer } from '@huggingface/tokenizers';

// A generator of pseudo-random numbers, so that the files come out the same every time.
const seed = process.argv[2] === '-check' ? 1 : Number(process.argv[4] ?? 1);
let state = seed;
const random = (n) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
};
const pick = (list) => list[random(list.length)];

const corpus = `Once upon a time there was a small robot who lived in a lighthouse. It didn't know the sea, and it couldn't swim.
"I'll go," said the robot, "they're waiting; we've only 12 days, 3 hours and 1999 seconds." The captain's dog won't eat; I'm sure he'd rather sleep.
	for (let i = 0; i < 100; i++) {
		print("value: %d\\n", values[i]);   // the running total
	}

Der große Bär läuft über die Brücke. Où est la bibliothèque, là-bas près du café ? El niño comió piñas en la mañana.
昔々あるところに、おじいさんとおばあさんが住んでいました。從前有一個小男孩。옛날 옛적에 한 소년이 살았습니다.
Жил-был маленький робот. כל הזכויות שמורות. مرحبا بالعالم. नमस्ते दुनिया. Xin chào thế giới. 😀 😀 👍🏽 👨‍👩‍👧 🇪🇺
The robot said that the others there, then, these and those would gather in the other lighthouse, whether the weather was better or not.
`;

const fragments = [
  'the', 'The', ' robot', 'lighthouse', ' and', 'ing', ' there', 'other', 'weather', 'x', 'I', 'A1b2', 'foo_bar', 'CamelCase', "don't", "WE'LL", "they'RE", "'s", "'S", "'t", "'ll", "'lL",
  "'d", "'", "''", "'ve", "'M", "'x", ' ', '  ', '   ', '       ', '\t', '\t\t', '\n', '\n\n', '\r\n', '\r', ' \n', '\n ', ' \t ', '\u00a0', '\u3000', '\u2003', '\u2028', '\u200b', '\v', '\f', '\u1680',
  '0', '7', '12', '123', '1234', '12345678', '3.14159', '1,000,000', '٣٤٥', '५', 'Ⅷ', '½', '²', '①②', '𝟘𝟙', '.', ',', '!?', '...', '—', '“', '”', '(', ')', '{}', '[i]', '//', '#!', '$', '+=', '€', '<', '>', '</',
  'café', 'cafe\u0301', 'Å', '\u212b', 'A\u030a', 'q\u0323\u0307', 'q\u0307\u0323', 'e\u0301\u0301', 'ế', 'e\u0302\u0301', 'a\u0315\u0300\u05ae\u0062', '\u0344', '\u0958', 'क\u093c', '\u1100\u1161\u11a8', '각', '가\u11a8',
  '가', '\u1100\u1161', '\u0f71\u0f72\u0f74', '\u0fb2\u0f80', 'ﬁ', '\uf900', '\u2126', '\u0301', '\u0f73', 'ö\u0323', '\u1e9b\u0323', '\u09c7\u09be', '\ud834\udd5e', '\u30ab\u3099', '\u0cca\u0cd5',
  'Straße', 'Ωmega', 'ǅ', 'ß', 'ı', 'K', '日本語', '中文', '漢字かな', 'カタカナ', '한국어', 'привет', 'שָׁלוֹם', 'مَرْحَبًا', 'हिन्दी', 'ไทย', 'ქართული', 'Ελληνικά', '𝒳𝓎', '𐍈', '🙂', '😀', '👍🏽', '👨‍👩‍👧', '🇪🇺', '🏴‍☠️', '☃️', '✓',
  '\u0000', '\u0001', '\u001b[0m', '\u007f', '\u009f', '\ufffd', '\uffff', '\u{10ffff}', '\ue000', '\u00ad', '\u200d', '\u2060',
  '<|endoftext|>', '<|endoftext', '|>', '<|im_start|>', '<|im_end|>', '<s>', '</s>', '<unk>', '<0x41>', '<0x', '▁', '▁▁', 'Ġ', 'Ċ', '[LEFT]', '[RIGHT]', ' [LEFT] ', ' [RIGHT] ', 'na\u0308ive', 'näive', '<|a|>', '<|ab|>', '<|a',
];

const bytes = (n) => new TextDecoder().decode(Uint8Array.from({ length: n }, () => random(random(2) ? 256 : 128)));
const characters = (n) => String.fromCodePoint(...Array.from({ length: n }, () => random(0x10f800)).map((c) => (c < 0xd800 ? c : c + 0x800)));

function text() {
  let s = '';
  if (seed > 1 && random(4) === 0) s = pick([bytes, characters])(1 + random(40));
  for (let n = 1 + random(9); n > 0; --n) {
    const kind = random(20);
    if (kind === 0) s += String.fromCodePoint(random(0x300));
    else if (kind === 1) s += String.fromCodePoint(0x300 + random(0x500));
    else if (kind === 2) s += pick(corpus.split(/(?<=\s)/));
    else if (kind === 3) s += pick(fragments).repeat(1 + random(6));
    else s += pick(fragments);
  }
  return s.replaceAll(/[\u0085\ufeff]/g, '');
}

const long = ['', 'a', ' ', '\n', 'a'.repeat(300), ' '.repeat(100), '\n'.repeat(50) + 'x', 'ab'.repeat(100), '1'.repeat(40), "'".repeat(20), corpus];

// Byte pair encoding.

const byteChars = (() => {
  const list = [];
  for (let b = 0, spare = 256; b < 256; ++b) {
    const printable = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b !== 0xad);
    list.push(String.fromCodePoint(printable ? b : spare++));
  }
  return list;
})();
const spell = (word) => Array.from(new TextEncoder().encode(word), (b) => byteChars[b]);

// The merges that join the most frequent pair of the words, again and again.
function train(words, count) {
  const merges = [];
  while (merges.length < count) {
    const pairs = new Map();
    for (const word of words)
      for (let i = 0; i + 1 < word.length; ++i) {
        const key = word[i] + ' ' + word[i + 1];
        pairs.set(key, (pairs.get(key) ?? 0) + 1);
      }
    let best = null;
    for (const [key, n] of pairs) if (best === null || n > pairs.get(best)) best = key;
    if (best === null) break;
    const [a, b] = best.split(' ');
    merges.push([a, b]);
    for (const word of words)
      for (let i = 0; i + 1 < word.length; ++i) if (word[i] === a && word[i + 1] === b) word.splice(i, 2, a + b);
  }
  return merges;
}

function vocabulary(...lists) {
  const vocab = {};
  for (const token of lists.flat()) vocab[token] ??= Object.keys(vocab).length;
  return vocab;
}

const gpt2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
const llama3 = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const qwen2 = llama3.replace('{1,3}', '');
const qwen35 = qwen2.replace('?\\p{L}+', '?[\\p{L}\\p{M}]+').replace('[^\\s\\p{L}\\p{N}]', '[^\\s\\p{L}\\p{M}\\p{N}]');
const [upper, lower] = [String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`];
const cased = (contraction, digits) => {
  const front = String.raw`[^\r\n\p{L}\p{N}]?`;
  return String.raw`${front}${upper}*${lower}+${contraction}|${front}${upper}+${lower}*${contraction}|\p{N}${digits}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
};
const o200k = cased("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", '{1,3}');
const tekken = cased('', '');
const deepseek3 = [
  String.raw`\p{N}{1,3}`, '[一-龥\u3040-ゟ゠-ヿ]+',
  '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+',
];
const words = (pattern) => corpus.match(new RegExp(pattern.replace(/\(\?i:(.*?)\)/g, '(?:$1)'), 'gu'));

const added = (id, content, more = {}) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true, ...more });
const byteLevel = (more = {}) => ({ type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true, ...more });
const split = (Regex) => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false });
const template = (token, id) => ({
  type: 'TemplateProcessing',
  single: [{ SpecialToken: { id: token, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
  pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
  special_tokens: { [token]: { id: token, ids: [id], tokens: [token] } },
});
const model = (more) => ({
  type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false, byte_fallback: false, ignore_merges: false, ...more,
});
const file = (more) => ({
  version: '1.0', truncation: null, padding: null, added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: byteLevel(), ...more,
});
const tokens = (merges) => merges.map(([a, b]) => a + b);
const join = (merges) => merges.map(([a, b]) => a + ' ' + b);

function byteLevelModel(pattern, count, more = {}) {
  const merges = train(words(pattern).map(spell), count);
  return { merges, model: model({ vocab: vocabulary(byteChars, tokens(merges)), merges, ...more }) };
}

const kinds = {
  gpt2() {
    const { merges, model } = byteLevelModel(gpt2, 400);
    const eos = (model.vocab['<|endoftext|>'] = Object.keys(model.vocab).length);
    model.merges = join(merges);
    return file({ added_tokens: [added(eos, '<|endoftext|>')], pre_tokenizer: byteLevel(), post_processor: byteLevel({ trim_offsets: false }), model });
  },

  llama3() {
    const { model } = byteLevelModel(llama3, 400, { ignore_merges: true });
    // Words that no merges lead to: only ignore_merges finds them.
    for (const word of ['Ġweather', 'xyz', 'Ġcaptain', '1234', 'é']) model.vocab[word] ??= Object.keys(model.vocab).length;
    const n = Object.keys(model.vocab).length;
    return file({
      added_tokens: ['<|begin_of_text|>', '<|endoftext|>', '<|a|>', '<|ab|>', '<|im_end|>'].map((t, i) => added(n + i, t)),
      pre_tokenizer: { type: 'Sequence', pretokenizers: [split(llama3), byteLevel({ use_regex: false })] },
      post_processor: { type: 'Sequence', processors: [byteLevel(), template('<|begin_of_text|>', n)] },
      model,
    });
  },

  qwen2() {
    const { merges, model } = byteLevelModel(qwen2, 400, { unk_token: null, continuing_subword_prefix: '', end_of_word_suffix: '' });
    model.merges = join(merges);
    const n = Object.keys(model.vocab).length;
    return file({
      added_tokens: [
        added(n, '<|endoftext|>'), added(n + 1, '<|im_start|>'), added(n + 2, '<|im_end|>'),
        added(n + 3, '[LEFT]', { lstrip: true, special: false }), added(n + 4, '[RIGHT]', { rstrip: true, special: false }),
        added(n + 5, 'na\u0308ive', { normalized: true, special: false }),
      ],
      normalizer: { type: 'NFC' },
      pre_tokenizer: { type: 'Sequence', pretokenizers: [split(qwen2), byteLevel({ use_regex: false })] },
      post_processor: byteLevel({ trim_offsets: false }),
      model,
    });
  },

  digits() {
    const { model } = byteLevelModel(gpt2, 200);
    return file({
      pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, byteLevel({ add_prefix_space: true })] },
      decoder: { type: 'Sequence', decoders: [byteLevel()] },
      model,
    });
  },

  llama2() {
    const pieces = corpus.replaceAll(' ', '▁').match(/▁*[^▁]+/g).map((w) => Array.from(w));
    const alphabet = Array.from(new Set(pieces.flat())).filter((c) => c === '▁' || /[\x21-\x7e\u00c0-\u04ff]/.test(c));
    const known = pieces.map((w) => w.filter((c) => alphabet.includes(c)));
    const merges = [['▁', '▁'], ['▁▁', '▁▁'], ...train(known, 300)];
    const bytes = Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`);
    return file({
      added_tokens: [added(0, '<unk>'), added(1, '<s>'), added(2, '</s>')],
      normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '▁' }, { type: 'Replace', pattern: { String: ' ' }, content: '▁' }] },
      post_processor: template('<s>', 1),
      decoder: {
        type: 'Sequence',
        decoders: [{ type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }, { type: 'Strip', content: ' ', start: 1, stop: 0 }],
      },
      model: model({
        unk_token: '<unk>', fuse_unk: true, byte_fallback: true,
        vocab: vocabulary(['<unk>', '<s>', '</s>'], bytes, tokens(merges), alphabet), merges: join(merges),
      }),
    });
  },

  metaspace() {
    const llama = kinds.llama2();
    const merges = llama.model.merges.map((m) => m.split(' '));
    const alphabet = Object.keys(llama.model.vocab).filter((t) => !/^<.+>$/.test(t));
    return file({
      added_tokens: [added(0, '<unk>'), added(1, '<s>'), added(2, '</s>', { normalized: true })],
      pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: false },
      decoder: llama.decoder,
      model: model({ unk_token: '<unk>', fuse_unk: true, vocab: vocabulary(['<unk>', '<s>', '</s>'], alphabet), merges }),
    });
  },
};

// Byte-level kinds that differ in their patterns alone.
for (const [kind, patterns] of Object.entries({ qwen35: [qwen35], o200k: [o200k], tekken: [tekken], deepseek3 }))
  kinds[kind] = () => {
    const { model } = byteLevelModel(patterns.at(-1), 150, { ignore_merges: kind === 'tekken' });
    const n = Object.keys(model.vocab).length;
    return file({
      added_tokens: [added(n, '<|endoftext|>'), added(n + 1, '<|im_start|>')],
      normalizer: { type: 'Sequence', normalizers: [] },
      pre_tokenizer: { type: 'Sequence', pretokenizers: [...patterns.map(split), byteLevel({ use_regex: false })] },
      model,
    });
  };

// Of families whose parts are those of others, laid out as in their files.
kinds.smollm2 = () => {
  const { model } = byteLevelModel(gpt2, 150);
  const n = Object.keys(model.vocab).length;
  model.merges = join(model.merges);
  return file({
    added_tokens: ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<repo_name>'].map((t, i) => added(n + i, t)),
    pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, byteLevel()] },
    model,
  });
};

kinds.qwen3 = () => {
  const qwen = kinds.qwen2();
  const n = qwen.added_tokens[0].id;
  const special = ['<|endoftext|>', '<|im_start|>', '<|im_end|>'], plain = ['<think>', '</think>', '<tool_call>'];
  qwen.added_tokens = [...special, ...plain].map((t, i) => added(n + i, t, { special: i < special.length }));
  qwen.post_processor = byteLevel({ trim_offsets: false, use_regex: false });
  qwen.pre_tokenizer.pretokenizers[1] = byteLevel({ trim_offsets: false, use_regex: false });
  Object.assign(qwen.model, { fuse_unk: false, byte_fallback: false, ignore_merges: false });
  return qwen;
};

kinds.mistral3 = () => {
  const llama = kinds.llama2();
  return file({
    ...llama, normalizer: null,
    added_tokens: [...llama.added_tokens, added(3 + Object.keys(llama.model.vocab).length, '[INST]'),
      added(4 + Object.keys(llama.model.vocab).length, '[/INST]')],
    pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: false },
    model: { ...llama.model, merges: llama.model.merges.map((m) => m.split(' ')), ignore_merges: false },
  });
};

function cases(spec, texts) {
  const tokenizer = new Tokenizer(spec, {});
  const ids = Object.values(spec.model.vocab).concat(spec.added_tokens.map((t) => t.id));
  const decode = (list) => (list.length ? tokenizer.decode(list, { skip_special_tokens: false, clean_up_tokenization_spaces: false }) : '');
  const encoded = texts.map((text) => {
    const ids = tokenizer.encode(text).ids;
    const decoded = decode(ids);
    return decoded === text ? { text, ids } : { text, ids, decoded };
  });
  // Any ids, whether or not a text leads to them.
  const decoded = Array.from({ length: texts.length / 4 }, () => Array.from({ length: 1 + random(8) }, () => pick(ids)))
    .map((ids) => ({ ids, decoded: decode(ids) }))
    .filter((c) => !c.decoded.includes('\ufeff'));
  return { encoded, decoded };
}

const lines = (list) => '[\n' + list.map((x) => JSON.stringify(x)).join(',\n') + '\n]';

if (process.argv[2] === '-check') {
  const texts = JSON.parse(readFileSync(process.argv[4], 'utf8'));
  const { encoded, decoded } = cases(JSON.parse(readFileSync(process.argv[3], 'utf8')), texts);
  console.log(`{"encoded": ${lines(encoded)},\n"decoded": ${lines(decoded)}}`);
} else {
  const [, , folder, count = 120] = process.argv;
  for (const [kind, make] of Object.entries(kinds)) {
    const spec = make();
    writeFileSync(`${folder}/${kind}.json`, JSON.stringify(spec) + '\n');
    const left = kind === 'digits' ? /[^\P{N}0-9]/gu : /[]/g;
    const texts = long.concat(Array.from({ length: count }, () => text().replaceAll(left, '')));
    const { encoded, decoded } = cases(spec, texts);
    writeFileSync(`${folder}/${kind}.cases.json`, `{"encoded": ${lines(encoded)},\n"decoded": ${lines(decoded)}}\n`);
  }
}
