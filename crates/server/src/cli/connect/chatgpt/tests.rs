//! What is asked, and what a reader is shown of a server in each state.

use std::collections::VecDeque;
use std::io;

use super::*;
use crate::config::Settings;

/// A person with answers prepared, who keeps what was said.
#[derive(Default)]
pub(in crate::cli::connect) struct Scripted {
    answers: VecDeque<&'static str>,
    pub(in crate::cli::connect) heard: String,
}

impl Scripted {
    pub(in crate::cli::connect) fn with(answers: &[&'static str]) -> Self {
        Self {
            answers: answers.iter().copied().collect(),
            heard: String::new(),
        }
    }
}

impl Person for Scripted {
    fn say(&mut self, text: &str) -> io::Result<()> {
        self.heard += &format!("{text}\n");
        Ok(())
    }

    fn ask(&mut self, question: &str) -> io::Result<Option<String>> {
        self.heard += question;
        Ok(self.answers.pop_front().map(str::to_owned))
    }

    fn ask_secret(&mut self, question: &str) -> io::Result<Option<String>> {
        self.ask(question)
    }
}

#[test]
fn the_way_is_asked_for() {
    let check = |answers: &[&'static str], expected: By| {
        let mut person = Scripted::with(answers);
        assert_eq!(choose(&mut person).unwrap(), expected, "{answers:?}");
        let first = person.heard.find("OpenAI's tunnel").unwrap();
        assert!(first < person.heard.find("(legacy)").unwrap());
    };
    check(&[], By::Tunnel);
    check(&[""], By::Tunnel);
    check(&["1"], By::Tunnel);
    check(&["2"], By::Address);
    check(&["3"], By::Action);
    check(&["two", "3"], By::Action);
}

#[test]
fn readers_see_what_is_left_to_do() {
    let home = tempfile::tempdir().unwrap();
    let mut plan = TunnelPlan::of(&Settings::defaults(home.path().into()));
    let id = format!("tunnel_{}", "a1".repeat(16));
    let open = Sight::Tunnel {
        id: Some(id.clone()),
        state: "ready",
    };
    let closed = Sight::Tunnelless {
        pid: 7,
        url: "http://127.0.0.1:8000".to_owned(),
    };
    let check = |plan: &TunnelPlan, sight: &Sight, has: &[&str], lacks: &[&str]| {
        let page = page(plan, sight);
        for words in has {
            assert!(page.contains(words), "lacks {words:?}: {page}");
        }
        for words in lacks {
            assert!(!page.contains(words), "has {words:?}: {page}");
        }
        let ready = *sight == open;
        assert_eq!(to_json(plan, sight)["ready"], ready);
        page
    };
    let all = ["Create a tunnel", "umask 077", "Add custom MCP server"];
    let page = check(&plan, &Sight::Gone, &all, &["✓"]);
    assert!(page.contains("no server runs") && page.contains("up --tunnel tunnel_…"));
    plan.call(id.clone());
    let mine = format!("up --tunnel {id}");
    check(&plan, &closed, &["kill 7", &mine, "umask 077"], &[all[0]]);
    let page = check(
        &plan,
        &open,
        &["✓ the tunnel is open", all[2], &id],
        &all[..2],
    );
    assert!(page.contains("\n 1. Plugins"), "{page}");
    assert!(page.contains(&FACTS.test) && page.contains("--by action"));
    let other = Sight::Tunnel {
        id: Some(id.replace('a', "b")),
        state: "ready",
    };
    check(&plan, &other, &["runs with another tunnel", &mine], &["✓"]);
    let refused = Sight::Tunnel {
        id: Some(id.clone()),
        state: "refused",
    };
    // The server's key is in its own environment: that it is not here is no cause.
    let words = ["the server's tunnel is refused", "scope admin"];
    check(&plan, &refused, &words, &["has no key", "umask 077"]);
    let json = to_json(&plan, &closed);
    assert_eq!(json["tunnel"]["id"], id.as_str());
    assert_eq!(json["exit_code"], 8);
    assert!(
        json["problems"][0]["cure"]
            .as_str()
            .unwrap()
            .contains("kill 7")
    );
    assert_eq!(json["steps"].as_array().unwrap().len(), 6);
}
