//! A real browser, driven by WebDriver: Debian's chromium and its driver, which `scripts/setup.sh test` installs.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Client;

/// Name under which WebDriver hands out elements (W3C WebDriver, section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window. It ends when dropped.
pub struct Browser {
    driver: Child,
    at: SocketAddr,
    session: String,
    _profile: TempDir,
}

impl Browser {
    pub fn start() -> Browser {
        let profile = tempfile::tempdir().expect("a directory for the profile");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a chromedriver: `scripts/setup.sh test` installs it");
        let lines = BufReader::new(driver.stdout.take().expect("it is piped")).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| line.split("successfully on port ").nth(1)?.trim_end_matches('.').parse().ok())
            .expect("it says on which port it listens");
        let mut browser =
            Browser { driver, at: ([127, 0, 0, 1], port).into(), session: String::new(), _profile: profile };
        // No sandbox: as root, and in a container, it has none to set up; it opens nothing but our own pages.
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--window-size=1100,900",
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let begun = browser.ask("POST", "/session", wanted);
        browser.session = format!("/session/{}", begun["sessionId"].as_str().expect("a session"));
        browser
    }

    pub fn open(&self, url: &str) {
        self.call("/url", json!({ "url": url }));
    }

    /// What a script gives back.
    pub fn run(&self, script: &str) -> Value {
        self.call("/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// The text that a reader sees.
    pub fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().expect("a text").to_owned()
    }

    pub fn click(&self, css: &str) {
        let element = self.find(css);
        self.call(&format!("/element/{element}/click"), json!({}));
    }

    /// Types into a field, which has the focus then; `\u{e007}` is Enter, `\u{e004}` Tab.
    pub fn keys(&self, css: &str, keys: &str) {
        let element = self.find(css);
        self.call(&format!("/element/{element}/value"), json!({ "text": keys }));
    }

    pub fn clear(&self, css: &str) {
        let element = self.find(css);
        self.call(&format!("/element/{element}/clear"), json!({}));
    }

    /// Shows pages in another light (`light`, `dark`), and as wide as told, in CSS pixels.
    pub fn emulate(&self, scheme: &str, width: u32) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }));
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size);
    }

    /// Writes a picture of the whole page.
    pub fn picture(&self, to: &Path) {
        let taken = self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
        let bytes = from_base64(taken["data"].as_str().expect("a picture"));
        std::fs::create_dir_all(to.parent().expect("a directory")).expect("the directory can be made");
        std::fs::write(to, bytes).expect("the picture can be written");
    }

    /// What the browser complained of, a refused script for example.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.call("/se/log", json!({ "type": "browser" }));
        let entries = log.as_array().cloned().unwrap_or_default();
        let of = |entry: &Value| entry["message"].as_str().unwrap_or_default().to_owned();
        entries.iter().filter(|entry| entry["level"] == "SEVERE").map(of).collect()
    }

    fn devtools(&self, command: &str, params: Value) -> Value {
        self.call("/goog/cdp/execute", json!({ "cmd": command, "params": params }))
    }

    fn find(&self, css: &str) -> String {
        let found = self.call("/element", json!({ "using": "css selector", "value": css }));
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    fn call(&self, path: &str, body: Value) -> Value {
        self.ask("POST", &format!("{}{path}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        let kind = [("content-type", "application/json")];
        let answer = Client::new(self.at)
            .request(method, path, &kind, body.to_string().as_bytes())
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert_eq!(answer.status, 200, "{method} {path} {body}: {}", answer.text());
        answer.json()["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser too, which killing the driver would leave behind.
        let _ = Client::new(self.at).request("DELETE", &self.session, &[], b"");
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four.iter().fold(0u32, |bits, letter| bits << 6 | u32::from(digit(*letter)));
        let bits = bits << (6 * (4 - four.len()));
        bytes.extend(bits.to_be_bytes()[1..four.len()].iter());
    }
    bytes
}
