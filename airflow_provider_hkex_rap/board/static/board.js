"use strict";

// Names of files and texts of RAP reach the page as text only, never as HTML.

const SYMBOLS = { complete: "✓", incomplete: "✗", awaited: "…", "not judged": "?" };
const ROLES = {
  current: "Current key",
  previous: "Previous key",
  pending: "Pending key",
  unregistered: "Key that waits for its registration",
};
const SVG = "http://www.w3.org/2000/svg";
const DAY = 86_400_000;
const NAMED = 3;  // reports that a cell names; its detail names all
const ATTENTION = 5;  // lines of one kind
const address = new URLSearchParams(location.search);
let opened = null;

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

function shape(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  return made;
}

// Theme: Airflow keeps the user's choice in the storage that its pages and this one share.

function applyTheme() {
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // A browser may forbid it; then its own colour scheme decides.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
}

// Formatting.

function bytes(size) {
  if (size === null) return "size unknown";
  if (size < 1000) return `${size} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = size;
  let unit = -1;
  do {
    value /= 1000;
    unit += 1;
  } while (value >= 999.5 && unit < units.length - 1);
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function hongKong(time, day = "") {
  const parts = Object.fromEntries(
    new Intl.DateTimeFormat("en-CA", {
      timeZone: "Asia/Hong_Kong", year: "numeric", month: "2-digit", day: "2-digit",
      hour: "2-digit", minute: "2-digit", hourCycle: "h23",
    }).formatToParts(new Date(time)).map((part) => [part.type, part.value]),
  );
  const date = `${parts.year}-${parts.month}-${parts.day}`;
  const clock = `${parts.hour}:${parts.minute}`;
  if (date === day) return clock;
  // Beside a day of the same year, the year says nothing.
  return day.slice(0, 4) === parts.year ? `${clock} on ${date.slice(5)}` : `${date} ${clock}`;
}

// Requests.

async function get(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" }, credentials: "same-origin" });
  if (answer.ok) return answer.json();
  const text = await answer.json().then((body) => body.detail, () => answer.statusText);
  const error = new Error(typeof text === "string" ? text : "The address is not valid.");
  error.status = answer.status;
  throw error;
}

function reason(error) {
  if (error.status === 401) return "You are not logged in to Airflow any more. Log in, and reload this page.";
  if (error.status === 403) return "You may not see this: it needs the permission to read assets in Airflow.";
  if (error.status) return error.message;
  return `The API server did not answer: ${error.message}. Reload the page; else see its log.`;
}

function problem(text) {
  return element("p", { className: "error", role: "alert" }, text);
}

// What needs attention: the grid and the accounts each fill their own list.

function needsAttention(list, items) {
  const shown = items.slice(0, ATTENTION);
  if (items.length > ATTENTION) shown.push(`and ${items.length - ATTENTION} more, below`);
  document.getElementById(list).replaceChildren(...shown.map((item) => element("li", {}, item)));
  document.getElementById("attention").hidden = !document.querySelector("#attention li");
}

function missingReports(board) {
  const cells = board.lakes.flatMap((lake) => lake.customers.flatMap((customer) => customer.cells
    .filter((cell) => cell.missing.length)
    .map((cell) => ({
      lake: lake.uri, customer: customer.customer, cell, day: customer.days.find((day) => day.day === cell.day) }))));
  // RAP removes the oldest day first.
  cells.sort((one, other) => one.cell.day.localeCompare(other.cell.day));
  return cells.map(({ lake, customer, cell, day }) => {
    const place = board.lakes.length > 1 ? ` in ${lake}` : "";
    const link = element("button", { type: "button", className: "link" },
      `${cell.folder} of ${customer}, ${day.weekday} ${cell.day}${place}`);
    link.addEventListener("click", () => {
      const button = cellElement(lake, customer, cell.folder, cell.day);
      if (opened?.button !== button) button.click();
    });
    return element("span", {}, link, ` ${lines(cell, day).join(", ")}`);
  });
}

function cellElement(lake, customer, folder, day) {
  const row = document.getElementById(rowId(lake, customer, day));
  return row.querySelector(`[data-cell="${[customer, folder, day].map(CSS.escape).join(" ")}"]`);
}

function endingKeys(found) {
  return found.accounts.flatMap((account) => account.keys
    .filter((key) => urgency(key, found.warning_days))
    .map((key) => `${account.account}: the ${key.role} key is valid ${keyEnd(key)}`));
}

// The grid.

function showBoard(board) {
  needsAttention("missing-reports", missingReports(board));
  document.getElementById("now").textContent = `${hongKong(board.now)} in Hong Kong`;
  const lakes = document.getElementById("lakes");
  lakes.replaceChildren();
  if (board.error) lakes.append(problem(board.error));
  for (const lake of board.lakes) {
    if (lake.error) lakes.append(problem(lake.error));
    for (const customer of lake.customers) lakes.append(customerSection(lake, customer, board.lakes.length > 1));
    if (lake.others.length) lakes.append(otherCustomers(lake));
  }
}

function otherCustomers(lake) {
  const links = lake.others.map((customer) =>
    element("a", { href: `?${new URLSearchParams({ customer })}` }, customer));
  return element("nav", { "aria-label": `Other customers of ${lake.uri}` }, "Other customers: ",
    ...links.flatMap((link, number) => (number ? [", ", link] : [link])));
}

function customerSection(lake, customer, namesLake) {
  const id = `customer-${lake.uri}-${customer.customer}`;
  const section = element("section", { "aria-labelledby": id },
    element("h2", { id }, `Reports of ${customer.customer}`),
    namesLake ? element("p", { className: "quiet" }, `Lake ${lake.uri}`) : null);
  if (customer.error) {
    section.append(problem(customer.error));
    return section;
  }
  for (const text of customer.problems) {
    section.append(element("p", { className: "notice" },
      `An entry of the manifest cannot be read, so its report may seem to be missing: ${text}. `
      + "Run 'airflow hkex-rap verify'."));
  }
  if (customer.more_problems) {
    section.append(element("p", { className: "notice" }, `${customer.more_problems} more entries cannot be read.`));
  }
  if (!customer.folders.length) {
    section.append(element("p", { className: "notice" },
      `The manifest has no report of ${customer.customer} of a business date since ${customer.since}. `
      + "Look at the runs of the download task."));
    return section;
  }
  section.append(element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-labelledby": id },
    gridTable(lake, customer)));
  if (customer.unused_folders.length) {
    section.append(element("p", { className: "quiet" },
      `Not judged, since nothing has landed from there since ${customer.since}: `
      + `${customer.unused_folders.join(", ")}.`));
  }
  return section;
}

function gridTable(lake, customer) {
  const cells = new Map(customer.cells.map((cell) => [`${cell.day} ${cell.folder}`, cell]));
  const head = element("tr", {}, element("th", { scope: "col" }, "Trading day"),
    ...customer.folders.map((folder) => element("th", { scope: "col" }, folder)));
  const rows = customer.days.map((day) => element("tr", { id: rowId(lake.uri, customer.customer, day.day) }, dayHeader(day),
    ...customer.folders.map((folder) => element("td", {},
      cellButton(lake, customer.customer, cells.get(`${day.day} ${folder}`), day)))));
  return element("table", { className: "grid" },
    element("caption", {}, "The days that RAP still keeps. Open a cell to see its files. Times are Hong Kong's."),
    element("thead", {}, head), element("tbody", {}, ...rows));
}

function rowId(lake, customer, day) {
  return `day-${lake}-${customer}-${day}`;
}

function dayHeader(day) {
  const left = day.days_left <= 1 ? "last day on RAP" : `${day.days_left} days left on RAP`;
  return element("th", { scope: "row", tabIndex: -1 }, `${day.weekday} ${day.day}`,
    element("span", { className: day.days_left <= 2 ? "wait" : "quiet" }, left),
    day.kind ? element("span", { className: "quiet" }, day.kind) : null,
    day.today ? element("span", { className: "quiet" }, "today") : null);
}

function summary(cell) {
  if (!cell.files) return "no file";
  const [first, last] = [cell.first, cell.last].map((time) => time && hongKong(time, cell.day));
  const times = first === last ? first : `${first} to ${last}`;
  return `${count(cell.files, "file")}, ${bytes(cell.bytes)}${first ? `, landed ${times}` : ""}`;
}

function names(cell, reports) {
  if (!cell.files && reports.length > 1) return `${cell.awaited.length ? "" : "all "}${reports.length} usual reports`;
  const more = reports.length - NAMED;
  const named = reports.slice(0, more > 1 ? NAMED : reports.length).map((each) => each.report).join(", ");
  return more > 1 ? `${named} and ${more} more` : named;
}

function due(each, day) {
  return `${each.report} by ${hongKong(each.due, day)}`;
}

function awaited(cell) {
  if (cell.awaited.length <= NAMED) return cell.awaited.map((each) => due(each, cell.day)).join(", ");
  const times = cell.awaited.map((each) => each.due).sort((one, other) => Date.parse(one) - Date.parse(other));
  return `${count(cell.awaited.length, "report")} between ${hongKong(times[0], cell.day)}`
    + ` and ${hongKong(times[times.length - 1], cell.day)}`;
}

function lines(cell, day) {
  const found = [];
  if (cell.missing.length) found.push(`missing: ${names(cell, cell.missing)}`);
  if (cell.missing.length && day && day.days_left <= 2) {
    found.push(day.days_left <= 1 ? "leaves RAP after today" : "leaves RAP after tomorrow");
  }
  if (cell.awaited.length) found.push(`awaited: ${awaited(cell)}`);
  if (cell.excused.length) found.push(`not there: ${names(cell, cell.excused)}`);
  if (cell.reason) found.push(cell.reason);
  return found;
}

function cellButton(lake, customer, cell, day) {
  const button = element("button", {
    type: "button", className: `cell ${cell.state.replace(" ", "-")}`, "aria-expanded": "false",
    "aria-controls": "detail",
  }, element("strong", {},
    `${SYMBOLS[cell.state]} ${cell.state[0].toUpperCase()}${cell.state.slice(1)}`),
    element("span", {}, summary(cell)), ...lines(cell, day).map((line) => element("span", {}, line)));
  button.dataset.cell = `${customer} ${cell.folder} ${cell.day}`;
  button.addEventListener("click", () => {
    if (opened?.button === button) closeDetail();
    else openDetail({ lake: lake.uri, customer, folder: cell.folder, day: cell.day, cell, dayFacts: day, button }, true);
  });
  return button;
}

// The files of a cell.

async function openDetail(chosen, setsAddress) {
  if (opened?.button) opened.button.setAttribute("aria-expanded", "false");
  opened = chosen;
  chosen.button?.setAttribute("aria-expanded", "true");
  if (setsAddress) remember(chosen);
  const detail = document.getElementById("detail");
  detail.hidden = false;
  const heading = element("h2", { id: "detail-heading", tabIndex: -1 },
    `${chosen.folder} of ${chosen.customer} on ${chosen.day}`);
  const close = element("button", { type: "button" }, "Close");
  close.addEventListener("click", closeDetail);
  const body = element("div", { "aria-live": "polite" }, "Reading the manifest …");
  detail.replaceChildren(element("header", {}, heading, close), body);
  heading.focus();
  heading.scrollIntoView?.({ block: "start" });
  const query = new URLSearchParams({ customer: chosen.customer, folder: chosen.folder, day: chosen.day });
  if (chosen.lake) query.set("lake", chosen.lake);
  try {
    const found = await get(`api/files?${query}`);
    if (opened === chosen) body.replaceChildren(...detailBody(chosen, found));
  } catch (error) {
    if (opened === chosen) body.replaceChildren(problem(reason(error)));
  }
}

function closeDetail() {
  const button = opened?.button;
  button?.setAttribute("aria-expanded", "false");
  opened = null;
  document.getElementById("detail").hidden = true;
  remember(null);
  button?.focus();
}

function remember(chosen) {
  const query = new URLSearchParams();
  if (address.has("customer")) query.set("customer", address.get("customer"));
  if (chosen) {
    for (const name of ["customer", "folder", "day", "lake"]) query.set(name, chosen[name]);
  }
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
}

function detailBody(chosen, found) {
  const body = [];
  if (chosen.cell) {
    const cell = chosen.cell;
    body.push(element("p", {}, element("strong", {}, `${SYMBOLS[cell.state]} ${cell.state}`), `: ${summary(cell)}`));
    for (const line of lines(cell, chosen.dayFacts).filter((text) => !/^(missing|awaited|not there):/.test(text))) {
      body.push(element("p", {}, line));
    }
    body.push(reportList("Missing", cell.missing, (each) => [each.report,
      each.usual_time ? `usually at ${each.usual_time} HKT` : "",
      each.seen_on.length ? `there on ${each.seen_on.join(", ")}` : ""].filter(Boolean).join(", "), "bad"),
    reportList("Awaited", cell.awaited, (each) => due(each, cell.day), "wait"),
    reportList("Not there", cell.excused, (each) => each.report, ""));
    if (cell.missing.length) {
      body.push(element("p", {}, "Run the download task: it lands all that RAP lists and the lake lacks. If RAP does"
        + " not list the report, ask HKEX. 'airflow hkex-rap ls' shows what RAP lists."));
    }
  } else {
    body.push(element("p", { className: "quiet" },
      "This day is not in the grid: RAP does not keep it any more, it is no trading day, or the folder is not used."));
  }
  for (const text of found.problems) body.push(element("p", { className: "notice" }, `Left out: ${text}.`));
  if (!found.files.length) {
    body.push(element("p", {}, "The manifest has no file of this day and folder."));
    return body;
  }
  body.push(element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Files" },
    filesTable(found)));
  return body;
}

function reportList(title, reports, text, className) {
  if (!reports.length) return "";
  return element("div", { className: "reports" }, element("p", { className }, title),
    element("ul", {}, ...reports.map((each) => element("li", {}, text(each)))));
}

function filesTable(found) {
  const shows = found.files.some((file) => file.login);
  const names = ["File", "Report", "Size", "Landed", "Run", ...(shows ? ["Login"] : [])];
  return element("table", {},
    element("caption", {}, `${count(found.files.length, "file")}. Times are Hong Kong's.`),
    element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...found.files.map((file) => fileRow(file, shows, found.day))));
}

function fileRow(file, showsLogin, day) {
  const about = [file.reason];
  if (!file.uri) about.push("not in the lake");
  else if (!file.current) about.push("superseded by a later version");
  return element("tr", {},
    element("th", { scope: "row" }, file.name,
      ...about.filter(Boolean).map((text) => element("span", { className: "wait" }, text)),
      file.uri ? element("code", {}, file.uri) : null,
      file.sha256 ? element("code", {}, `SHA-256 ${file.sha256}`) : null,
      file.supersedes ? element("span", { className: "quiet" }, "supersedes ", element("code", {}, file.supersedes))
        : null),
    element("td", { className: "report" }, file.report),
    element("td", { className: "whole" }, bytes(file.size)),
    element("td", { className: "whole" }, file.committed ? hongKong(file.committed, day) : "–"),
    element("td", { className: "parts" }, file.run ? runLink(file.run) : "–"),
    showsLogin ? element("td", { className: "parts" }, ...loginParts(file.login)) : null);
}

function loginParts(login) {
  if (!login) return ["–"];
  const key = login.client_key_fingerprint;
  return [...parts(login.account, `${login.site} site, ${login.address}`), key ? element("code", {}, `key ${key}`) : null];
}

function parts(...texts) {
  return texts.map((text, number) => element("span", {}, number < texts.length - 1 ? `${text}, ` : text));
}

function runLink(run) {
  const path = ["dags", run.dag, "runs", run.run];
  // An entry of an earlier version does not say if its task is mapped: it leads to the run.
  if (run.map_index !== null) {
    path.push("tasks", run.task);
    if (run.map_index >= 0) path.push("mapped", run.map_index);
  }
  const link = element("a", { href: `../${path.map(encodeURIComponent).join("/")}?try_number=${run.try ?? 1}` },
    ...parts(run.dag, run.run, `${run.task}, try ${run.try ?? "–"}`));
  link.addEventListener("click", followInAirflow);
  return link;
}

// Airflow shows the board in a frame that may not move the whole page: a link of the outer page may.
function followInAirflow(event) {
  if (window.parent === window || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  try {
    const outer = window.parent.document.createElement("a");
    outer.href = event.currentTarget.href;
    event.preventDefault();
    outer.click();
  } catch {
    // The frame of another site: the link opens in the frame.
  }
}

// Accounts and keys.

function showAccounts(found) {
  needsAttention("ending-keys", endingKeys(found));
  const box = document.getElementById("accounts");
  box.replaceChildren(...found.errors.map(problem));
  for (const account of found.accounts) box.append(accountCard(account, found.now.slice(0, 10), found.warning_days));
  if (!found.accounts.length) {
    box.append(element("p", {}, "Airflow lists no connection of the type hkex_rap that you may read, and no manifest"
      + " names an account. Create the connection in the menu Admin, Connections."));
  }
}

function accountCard(account, today, warningDays) {
  const card = element("article", { className: "account" },
    element("h3", {}, account.account || `Connection ${account.connection}`));
  if (account.error) card.append(problem(account.error));
  if (account.keys.length) {
    card.append(element("div", { className: "keys" },
      timeline(account.keys, today, warningDays), keysTable(account.keys, warningDays)));
  }
  card.append(element("dl", {}, ...facts(account).flatMap(
    ([name, value]) => [element("dt", {}, name), element("dd", {}, value)])));
  return card;
}

function facts(account) {
  const found = [];
  if (account.connection) found.push(["Connection", account.connection]);
  if (account.site) found.push(["Active site", `${account.site}, as the connection says (§2.2)`]);
  // The note of the current key has it.
  if (account.warning && !account.keys.some((key) => key.role === "current")) {
    found.push(["RAP's last warning", `${account.warning.day}: ${account.warning.text}`]);
  }
  if (account.keys.length) {
    found.push(["Last login", account.last_login ? hongKong(account.last_login) : "not recorded yet"]);
  }
  const last = account.last_download;
  if (last) found.push(["Last download", `${hongKong(last.at)}, ${last.site} site, ${last.address}`]);
  const cut = account.superseded ?? [];
  if (cut.length) {
    found.push(["Superseded sessions", `${count(cut.length, "session")} ended by another login (§4.3), the last on `
      + `${hongKong(cut[cut.length - 1])}`]);
  } else if (account.keys.length) found.push(["Superseded sessions", "none recorded"]);
  return found;
}

function urgency(key, warningDays) {
  if (key.days_left === null || key.role === "previous") return "";
  if (key.days_left <= warningDays) return "ending";
  return key.renewal_due ? "soon" : "";
}

function keyEnd(key) {
  if (key.last_day === null) return key.role === "pending" ? "two years after its upload" : "last day not known";
  const left = key.days_left ? `${count(key.days_left, "day")} left` : "ended";
  return `through ${key.last_day}, ${left}`;
}

function keysTable(keys, warningDays) {
  const rows = keys.map((key) => {
    const level = urgency(key, warningDays);
    return element("tr", {}, element("th", { scope: "row" }, ROLES[key.role] ?? key.role),
      element("td", {}, element("span", { className: { ending: "bad", soon: "wait" }[level] ?? "" },
        `${level ? "⚠ " : ""}${keyEnd(key)}`), key.note ? element("p", { className: "quiet" }, key.note) : null),
      element("td", { className: "hash" }, key.fingerprint));
  });
  return element("table", {}, element("thead", {}, element("tr", {},
    ...["Key", "Valid (§6.1)", "Fingerprint"].map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...rows));
}

// A picture of the table beside it: hidden from screen readers, which read the table.
function timeline(keys, today, warningDays) {
  const now = Date.parse(today);
  const start = Math.min(now - 14 * DAY, ...keys.map((key) => Math.max(Date.parse(key.since ?? today), now - 60 * DAY)));
  const known = keys.filter((key) => key.last_day).map((key) => Date.parse(key.last_day) + DAY);
  const end = Math.max(now + 30 * DAY, ...known.map((day) => Math.min(day, now + 120 * DAY))) + 5 * DAY;
  const at = (day) => 80 + (Math.min(Math.max(day, start), end) - start) / (end - start) * 410;
  const height = 22 * keys.length + 22;
  const picture = shape("svg", { viewBox: `0 0 500 ${height}`, class: "timeline", "aria-hidden": "true" });
  keys.forEach((key, row) => {
    const [from, to] = [at(Date.parse(key.since ?? today)), at(key.last_day ? Date.parse(key.last_day) + DAY : end)];
    picture.append(shape("text", { x: 0, y: 22 * row + 15 }, key.role),
      shape("rect", { x: from, y: 22 * row + 5, width: Math.max(to - from, 2), height: 12, rx: 2,
        class: `bar ${urgency(key, warningDays)} ${key.last_day ? "" : "open"}` }));
  });
  const line = height - 18;
  picture.append(shape("line", { x1: 80, x2: 490, y1: line, y2: line, class: "axis" }),
    shape("line", { x1: at(now), x2: at(now), y1: 0, y2: line, class: "today" }),
    shape("text", { x: at(now), y: height - 4, "text-anchor": "middle" }, "today"),
    shape("text", { x: 490, y: height - 4, "text-anchor": "end" }, new Date(end).toISOString().slice(0, 10)));
  return picture;
}

// Start.

async function loadAccounts(query) {
  try {
    showAccounts(await get(`api/accounts${query}`));
  } catch (error) {
    const text = error.status === 403
      ? "Accounts and keys are shown to users who may read connections in Airflow."
      : reason(error);
    document.getElementById("accounts").replaceChildren(
      error.status === 403 ? element("p", { className: "quiet" }, text) : problem(text));
  }
}

async function load() {
  const status = document.getElementById("status");
  const [customer, folder, day, lake] = ["customer", "folder", "day", "lake"].map((name) => address.get(name));
  const query = customer ? `?${new URLSearchParams({ customer })}` : "";
  try {
    const board = await get(`api/board${query}`);
    showBoard(board);
    status.textContent = customer && day ? openAddress(board, customer, folder, day, lake) : "";
  } catch (error) {
    status.replaceChildren(problem(reason(error)));
  }
  // After the grid, since both read the same manifest, which the API server then has in memory.
  await loadAccounts(query);
  document.documentElement.dataset.loaded = "true";
}

// The address of an alert may name no folder: then the row of the day says which folder lacks what.
function openAddress(board, customer, folder, day, lake) {
  const lakes = board.lakes.filter((each) => !lake || plainUri(each.uri) === plainUri(lake));
  const row = lakes.map((each) => document.getElementById(rowId(each.uri, customer, day))).find(Boolean);
  row?.classList.add("chosen");
  if (folder) {
    openDetail(locate(lakes, customer, folder, day) ?? {
      lake: lake && (lakes[0]?.uri ?? lake), customer, folder, day, cell: null, button: null }, false);
  } else if (row) {
    row.cells[0].focus();
    row.scrollIntoView?.({ block: "center" });
  } else {
    return `There is no row of ${customer} for ${day}: RAP does not keep that day any more, or the board does not show`
      + ` the lake${lake ? ` ${lake}` : ""}.`;
  }
  return "";
}

// The DAG and the board may each spell a lake on a disk in their own way.
function plainUri(uri) {
  return uri.trim().replace(/^(file|local):\/\//, "").replace(/\/$/, "");
}

function locate(lakes, customer, folder, day) {
  for (const lake of lakes) {
    const found = lake.customers.find((each) => each.customer === customer);
    const cell = found?.cells.find((each) => each.folder === folder && each.day === day);
    if (cell) {
      const button = cellElement(lake.uri, customer, folder, day);
      return { lake: lake.uri, customer, folder, day, cell, button, dayFacts: found.days.find((each) => each.day === day) };
    }
  }
  return null;
}

applyTheme();
addEventListener("storage", applyTheme);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && opened) closeDetail();
});
document.getElementById("reload").addEventListener("click", () => location.reload());
load();
