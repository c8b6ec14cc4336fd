// The code leaves the address bar before anything else: no history, screenshot or copied link has it.
const code = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

const element = (id) => document.getElementById(id);

async function pair(typed) {
  element("typed").hidden = true;
  let text = "keyproxy does not answer. Is it still running?";
  try {
    const answer = await fetch("/pair", {
      method: "POST",
      headers: { "X-Pairing-Code": typed.trim().toUpperCase() },
    });
    if (answer.ok) {
      element("said").textContent = "This device may use keyproxy until it is stopped.";
      element("next").hidden = false;
      return;
    }
    text = (await answer.json()).error.message;
  } catch {
    // said below
  }
  element("said").textContent = text;
  element("typed").hidden = false;
}

element("typed").addEventListener("submit", (event) => {
  event.preventDefault();
  pair(element("code").value);
});

if (code) {
  pair(code);
} else {
  element("said").textContent = "Scan the code in the terminal where keyproxy runs, or type it.";
  element("typed").hidden = false;
}
