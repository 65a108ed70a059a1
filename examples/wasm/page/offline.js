// The service worker: once the page has been loaded, it works without a network. The build puts its version here, so
// that the browser takes a new build for a new page; what the older one stored is dropped.
"use strict";
const cacheName = "photon-VERSION"; // worker.js puts the model there
const shell = ["./", "page.js", "worker.js", "wasm_exec.js", "files.json"];

self.addEventListener("install", event => {
  self.skipWaiting();
  event.waitUntil(caches.open(cacheName).then(cache => cache.addAll(shell.map(url => new Request(url, {cache: "reload"})))));
});

self.addEventListener("activate", event => {
  const old = name => name.startsWith("photon-") && name !== cacheName;
  event.waitUntil(caches.keys().then(names => Promise.all(names.filter(old).map(name => caches.delete(name))))
    .then(() => self.clients.claim()));
});

self.addEventListener("fetch", event => {
  if (event.request.method !== "GET") return;
  event.respondWith(caches.open(cacheName).then(cache => cache.match(event.request, {ignoreSearch: true}))
    .then(stored => stored || fetch(event.request)));
});
