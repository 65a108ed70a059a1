// browser.js PLAYWRIGHT CHROMIUM URL PICTURES: the page in a browser, by its buttons. It prints what it saw, as JSON.
"use strict";
const [, , playwright, chromium, url, pictures] = process.argv;
const {chromium: browsers} = require(playwright);

(async () => {
  const browser = await browsers.launch({executablePath: chromium, args: ["--no-sandbox"]});
  const context = await browser.newContext({viewport: {width: 360, height: 740}, colorScheme: "dark"});
  const page = await context.newPage(), seen = {problems: []};
  page.on("pageerror", error => seen.problems.push(String(error)));
  page.on("console", line => { if (line.type() === "error") seen.problems.push(line.text()); });
  const text = id => page.locator("#" + id).textContent();
  const picture = name => page.screenshot({path: `${pictures}/${name}.png`, fullPage: true});
  const wide = () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

  await page.goto(url);
  await page.locator("#load:enabled").waitFor();
  seen.size = await text("size");

  // Without a network the button says so, and works once there is one.
  await context.setOffline(true);
  await page.click("#load");
  await page.locator("#error").waitFor();
  seen.broken = await text("error");
  seen.problems = seen.problems.filter(line => !line.includes("ERR_INTERNET_DISCONNECTED"));
  await context.setOffline(false);
  const begin = Date.now();
  await page.click("#load");
  await page.locator("#write").waitFor();
  seen.loaded = Date.now() - begin;

  const done = () => page.waitForFunction(() => document.querySelector("#stop").disabled && !document.querySelector("#start").disabled);
  const write = async () => {
    await page.click("#start");
    await done();
    return {text: await text("text"), first: parseFloat(await text("first")), rate: parseFloat(await text("rate")), status: await text("status"),
      tokens: Number(await text("tokens")), state: await text("state")};
  };
  seen.story = await write();
  await picture("phone-dark");
  seen.again = await write();
  seen.wide = await wide();

  await page.fill("#length", "30000");
  await page.fill("#temperature", "1.2");
  await page.focus("#start");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => Number(document.querySelector("#tokens").textContent) > 100 && !document.querySelector("#stop").disabled);
  const escape = Date.now();
  await page.keyboard.press("Escape");
  await done();
  seen.stopTook = Date.now() - escape;
  seen.stopped = await text("status");

  await page.fill("#temperature", "-1");
  await page.click("#start");
  seen.invalid = await page.evaluate(() => document.querySelector("#temperature").validity.rangeUnderflow);

  // A second visit needs no network.
  await page.waitForFunction(() => navigator.serviceWorker.ready.then(() => true));
  await page.reload();
  await page.locator("#load:enabled").waitFor();
  await context.setOffline(true);
  await page.reload();
  await page.locator("#load:enabled").waitFor();
  seen.stored = await text("size");
  await page.emulateMedia({colorScheme: "light"});
  await page.setViewportSize({width: 1100, height: 800});
  await page.click("#load");
  await page.locator("#write").waitFor();
  seen.offline = await write();
  seen.wide = Math.max(seen.wide, await wide());
  await picture("wide-light");
  console.log(JSON.stringify(seen));
  await browser.close();
})().catch(error => { console.error(error); process.exit(1); });
