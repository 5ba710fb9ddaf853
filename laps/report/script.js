// Hovering tells what a mark is; a click on a cluster's number shows that cluster alone. The page works without it.
(function () {
  var tip = document.getElementById("tip");
  function show(event) {
    var mark = event.target.closest ? event.target.closest("[data-tip]") : null;
    if (!mark) { tip.style.display = "none"; return; }
    tip.textContent = mark.getAttribute("data-tip");
    var id = mark.getAttribute("data-id");
    var sheet = id && document.querySelector('figure[data-id="' + CSS.escape(id) + '"] .frames');
    if (sheet) tip.appendChild(sheet.cloneNode(true));
    tip.style.display = "block";
    var box = tip.getBoundingClientRect();
    var left = Math.min(event.clientX + 14, window.innerWidth - box.width - 8);
    var top = event.clientY + 18;
    if (top + box.height > window.innerHeight - 8) top = event.clientY - box.height - 12;
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = Math.max(4, top) + "px";
  }
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", function () { tip.style.display = "none"; }, { passive: true });

  var chosen = null;
  document.addEventListener("click", function (event) {
    var button = event.target.closest ? event.target.closest("[data-cluster]") : null;
    if (!button) return;
    var cluster = button.getAttribute("data-cluster");
    chosen = chosen === cluster ? null : cluster;
    document.querySelectorAll("[data-cluster]").forEach(function (other) {
      other.setAttribute("aria-pressed", String(other.getAttribute("data-cluster") === chosen));
    });
    document.querySelectorAll(".dot, .band").forEach(function (mark) {
      mark.classList.toggle("faded", chosen !== null && !mark.classList.contains("c" + chosen));
    });
  });
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (element) { element.open = true; });
  });
})();
