(function () {
  const live = document.getElementById("live"), link = document.getElementById("link");
  let busy = false, again = false;
  function swap(html) {
    const open = [...live.querySelectorAll("details[open]")].map(d => d.id);
    const at = [...live.querySelectorAll(".scroll")].map(s => s.scrollLeft);
    const focus = live.contains(document.activeElement) ? document.activeElement.id : "";
    live.replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
    for (const id of open) { const d = document.getElementById(id); if (d) d.open = true; }
    live.querySelectorAll(".scroll").forEach((s, i) => { s.scrollLeft = at[i] || 0; });
    if (focus) { const f = document.getElementById(focus); if (f) f.focus({ preventScroll: true }); }
  }
  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch("/fragment" + location.search);
      if (answer.status === 401) { link.textContent = "signed out: reload the page to sign in"; return; }
      if (!answer.ok) throw new Error(answer.status);
      const html = await answer.text();
      // A button that is being pressed stays until it is released.
      while (live.querySelector("button:active")) await new Promise(done => setTimeout(done, 100));
      swap(html);
      link.textContent = "live";
    } catch (error) {
      link.textContent = "not connected: these figures are old";
    } finally {
      busy = false;
      if (again) { again = false; refresh(); }
    }
  }
  function listen() {
    const events = new EventSource("/v1/events");
    events.addEventListener("picture", refresh);
    events.onerror = () => {
      link.textContent = "not connected: these figures are old";
      if (events.readyState === EventSource.CLOSED) { setTimeout(() => { refresh(); listen(); }, 5000); }
    };
  }
  listen();
})();
