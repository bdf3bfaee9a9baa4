"use strict";
(() => {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const heading = document.createElement("h1");
  heading.textContent = data.study.question;
  document.getElementById("explorer").append(heading);
})();
