// The page for those without a session.

const form = document.getElementById("signin");
const token = document.getElementById("token");
const wrong = document.getElementById("wrong");

// A link that was followed from another site's page comes without the cookie, which is not for
// others to use; this page asks for itself.
fetch("/api/v1/session").then(
  (answer) => answer.ok && location.reload(),
  () => {},
);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  wrong.textContent = "";
  try {
    const answer = await fetch("/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: token.value.trim() }),
    });
    if (answer.ok) {
      location.reload();
      return;
    }
    wrong.textContent = `Not signed in: ${(await answer.json()).detail}.`;
  } catch {
    wrong.textContent = "Not signed in: the server does not answer.";
  }
  token.select();
});

// Not before: a browser that sends the form by itself would put the token into the address.
form.querySelector("fieldset").disabled = false;
