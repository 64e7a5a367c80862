//! `tradewind init`: a commented configuration to start from.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
};

use super::{Failure, table};
use crate::config;

/// Write a commented configuration to start from, by options or, without any, by asking
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: tradewind init --eks us-east-1=https://llama.use1.example.com \\\n  \
                        --gke us-central1=https://llama.usc1.example.com --objective 800ms")]
pub(super) struct Args {
    /// A deployment on Amazon EKS: its region and its address. May be given several times
    #[arg(long, value_name = "REGION=URL", value_parser = place)]
    eks: Vec<(String, String)>,

    /// A deployment on Google GKE
    #[arg(long, value_name = "REGION=URL", value_parser = place)]
    gke: Vec<(String, String)>,

    /// A deployment elsewhere, of which no price is known
    #[arg(long, value_name = "REGION=URL", value_parser = place)]
    other: Vec<(String, String)>,

    /// Time to first byte that 95% of the requests are promised, "800ms"
    #[arg(long, value_name = "DURATION")]
    objective: Option<String>,

    /// Where to write it; `-` for standard output
    #[arg(long, short, value_name = "FILE", default_value = "tradewind.toml")]
    out: PathBuf,

    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

/// `us-east-1=https://llama.example.com`
fn place(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((region, url)) if !region.is_empty() && !region.contains('/') => Ok((region.into(), url.into())),
        _ => Err("expected REGION=URL, such as us-east-1=https://llama.example.com".into()),
    }
}

/// Where a deployment runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Eks,
    Gke,
    Other,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Eks, Kind::Gke, Kind::Other];

    fn name(self) -> &'static str {
        match self {
            Kind::Eks => "eks",
            Kind::Gke => "gke",
            Kind::Other => "other",
        }
    }

    /// The source of its prices.
    fn cloud(self) -> Option<&'static str> {
        match self {
            Kind::Eks => Some("aws"),
            Kind::Gke => Some("gcp"),
            Kind::Other => None,
        }
    }
}

/// What is asked for.
#[derive(Debug, Default)]
struct Wish {
    places: Vec<(Kind, String, String)>,
    objective: Option<String>,
}

/// Writes the file, once it is known to be valid.
///
/// # Errors
/// When nothing is said and nobody can be asked, when what is said is wrong, or when the file is there already.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let to_stdout = args.out == Path::new("-");
    if !to_stdout && !args.force && args.out.exists() {
        return Err(Failure::Input(format!(
            "{} is there already: name another file with --out, or replace it with --force",
            args.out.display()
        )));
    }
    let of = |kind: Kind, places: &[(String, String)]| {
        places.iter().map(move |(region, url)| (kind, region.clone(), url.clone())).collect::<Vec<_>>()
    };
    let places = [of(Kind::Eks, &args.eks), of(Kind::Gke, &args.gke), of(Kind::Other, &args.other)].concat();
    let wish = match places.is_empty() {
        false => Wish { places, objective: args.objective },
        true if io::stdin().is_terminal() => ask(&mut io::stdin().lock(), &mut io::stderr())
            .map_err(|error| Failure::Input(format!("the answers cannot be read: {error}")))?,
        true => {
            return Err(Failure::Input(
                "nothing says what is to be served, and there is no terminal to ask on: give --eks REGION=URL, --gke \
                 REGION=URL or --other REGION=URL, once for each deployment"
                    .into(),
            ));
        }
    };
    if wish.places.is_empty() {
        return Err(Failure::Input("without a deployment there is nothing to write".into()));
    }
    let text = written(&wish);
    let path = if to_stdout { Path::new("tradewind.toml") } else { &args.out };
    if let Err(faults) = config::parse(&text, path) {
        return Err(Failure::Input(format!("nothing is written, since it would have faults:\n{faults}")));
    }
    if to_stdout {
        table::print(&text);
        return Ok(());
    }
    std::fs::write(path, &text)
        .map_err(|error| Failure::Input(format!("{} cannot be written: {error}", path.display())))?;
    println!(
        "{path} is written. Next:\n  look at the lines with MEASURE and CHECK in it\n  tradewind check --config {path}\n  \
         tradewind run --config {path}",
        path = path.display()
    );
    Ok(())
}

/// Asks for one deployment after another, and for the objective.
fn ask(answers: &mut impl BufRead, questions: &mut impl Write) -> io::Result<Wish> {
    let mut question = |text: &str| -> io::Result<Option<String>> {
        write!(questions, "{text}")?;
        questions.flush()?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        Ok(Some(line.trim().to_owned()).filter(|line| !line.is_empty()))
    };
    let mut wish = Wish::default();
    loop {
        let which =
            if wish.places.is_empty() { "Where does the model run" } else { "Where else does it run" };
        let Some(name) = question(&format!("{which}? eks, gke or other; nothing ends the list: "))? else {
            break;
        };
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == name) else {
            question(&format!("`{name}` is none of eks, gke and other; press Enter to go on "))?;
            continue;
        };
        let region = question("In which region, such as us-east-1? ")?;
        let url = question("At which address do requests reach it, such as https://llama.example.com? ")?;
        match region.zip(url) {
            Some((region, url)) => wish.places.push((kind, region, url)),
            None => _ = question("Both are needed; press Enter to go on ")?,
        }
    }
    if !wish.places.is_empty() {
        wish.objective = question(
            "Within which time shall 95% of the requests have their first byte, such as 800ms; nothing for no objective: ",
        )?;
    }
    Ok(wish)
}

/// The file.
fn written(wish: &Wish) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut backends = String::new();
    for (kind, region, url) in &wish.places {
        let stem = format!("{}-{region}", kind.name());
        let name = (1..).map(|n| if n == 1 { stem.clone() } else { format!("{stem}-{n}") });
        let Some(name) = name.into_iter().find(|name| !names.contains(name)) else { continue };
        backends += &backend(*kind, &name, region, url);
        names.push(name);
    }
    let mut clouds: Vec<&str> = wish.places.iter().filter_map(|(kind, ..)| kind.cloud()).collect();
    clouds.dedup();
    let list = |items: &[String]| items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", ");
    let objective = match &wish.objective {
        Some(time) => format!(
            "slo = {{ ttft_p95 = {} }}         # what 95% of the requests are promised\n",
            quoted(time)
        ),
        None => {
            "# slo = { ttft_p95 = \"800ms\" }          # a backend that is slower than this is left\n".into()
        }
    };
    let prices = match clouds.as_slice() {
        [] => "# Nothing says what these backends cost, so the first healthy one serves. With a file of prices, and `node` and\n\
               # `replicas` at each backend, the cheapest does: docs/prices.md.\n\
               # sources = [{ file = \"prices.csv\" }]\n"
            .to_owned(),
        clouds => {
            let clouds: Vec<String> = clouds.iter().map(|cloud| (*cloud).to_owned()).collect();
            format!(
                "# Live prices. AWS: the standard chain of credentials, with ec2:DescribeSpotPriceHistory and pricing:GetProducts.\n\
                 # Google Cloud: application default credentials, or an API key: gcp = {{ api_key = {{ file = \"gcp.key\" }} }}.\n\
                 # CHECK them with: tradewind prices check --config THIS-FILE\n\
                 sources = [{}]\n",
                list(&clouds)
            )
        }
    };
    let names = list(&names);
    format!(
        "# Tradewind, as `tradewind init` wrote it. Every key: docs/configuration.md; for editors: `tradewind schema`.\n\
         # Relative paths start at the directory of this file.\n\n\
         [listen]\n\
         http = \"127.0.0.1:8080\"                 # HTTP/1.1 and h2c; 0.0.0.0:8080 for clients on other machines\n\
         # https = {{ addr = \"0.0.0.0:8443\", cert = \"tls.crt\", key = \"tls.key\" }}\n\n\
         [admin]\n\
         listen = \"127.0.0.1:9901\"               # the dashboard; other than loopback: tokens and TLS are required\n\n\
         [state]\n\
         dir = \"state\"                           # overrides and the journal\n\n\
         [prices]\n{prices}\n\
         {backends}\
         [routes.all]\n\
         match = {{ path = \"/*\" }}                 # and/or host, header, model\n\
         backends = [{names}]\n\
         policy = \"default\"\n\
         {objective}\n\
         [policies.default]\n\
         rule = \"threshold\"\n\
         shift_at = \"15%\"                        # leave when the other side is cheaper by this much,\n\
         return_at = \"5%\"                        # return when less than this is left of it,\n\
         hold = \"10m\"                            # and never within this time after the last move\n\
         ramp = \"10%/m\"                          # share that may move in a minute\n"
    )
}

fn backend(kind: Kind, name: &str, region: &str, url: &str) -> String {
    let (cloud, platform, machine) = match kind {
        Kind::Eks => ("aws", "eks", Some("g5.2xlarge")),
        Kind::Gke => ("gcp", "gke", Some("g2-standard-8")),
        Kind::Other => ("other", "other", None),
    };
    let costs = match machine {
        Some(machine) => format!(
            "# CHECK the machine and the part of the nodes that is bought as spot.\n\
             node = {{ instance_type = \"{machine}\", spot = \"90%\" }}\n\
             # MEASURE rps: the requests per second that one replica serves within the objective. `min` replicas are paid always.\n\
             replicas = {{ min = 1, max = 10, rps = 10.0, cold_start = \"4m\" }}\n"
        ),
        None => String::new(),
    };
    format!(
        "[backends.{}]\nurl = {}\ncloud = \"{cloud}\"\nplatform = \"{platform}\"\nregion = {}\n\
         # CHECK the path: one that answers with 200 while the model can serve. Without `probe`, connecting is enough.\n\
         # probe = {{ path = \"/health\", interval = \"5s\", timeout = \"2s\" }}\n{costs}\n",
        if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            name.to_owned()
        } else {
            quoted(name)
        },
        quoted(url),
        quoted(region),
    )
}

/// A text as TOML writes it on one line, which is how JSON writes it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(places: &[(Kind, &str, &str)]) -> Wish {
        let places =
            places.iter().map(|(kind, region, url)| (*kind, (*region).into(), (*url).into())).collect();
        Wish { places, objective: Some("800ms".into()) }
    }

    #[test]
    fn what_is_written_is_valid_and_without_warnings() {
        for places in [
            &[
                (Kind::Eks, "us-east-1", "https://a.example.com"),
                (Kind::Gke, "us-central1", "https://b.example.com"),
            ][..],
            &[
                (Kind::Eks, "us-east-1", "https://a.example.com"),
                (Kind::Eks, "us-east-1", "https://b.example.com"),
            ],
            &[(Kind::Other, "here", "http://127.0.0.1:8001")],
        ] {
            let text = written(&wish(places));
            let loaded =
                config::parse(&text, Path::new("t.toml")).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
            let priced = places.iter().all(|(kind, ..)| kind.cloud().is_some());
            assert_eq!(loaded.warnings.is_empty(), priced, "{:?}", loaded.warnings);
            assert_eq!(loaded.settings.backends.len(), places.len());
        }
    }

    #[test]
    fn what_is_said_cannot_become_another_key() {
        let text = written(&wish(&[(Kind::Other, "a\"\nb = 1", "http://x")]));
        assert!(config::parse(&text, Path::new("t.toml")).is_err());
        assert!(!text.contains("\nb = 1"), "{text}");
    }

    #[test]
    fn answers_make_the_same_wish() {
        let answers = "eks\nus-east-1\nhttps://a.example.com\naks\n\ngke\nus-central1\nhttps://b.example.com\n\n800ms\n";
        let mut questions = Vec::new();
        let wish = ask(&mut answers.as_bytes(), &mut questions).unwrap();
        let said = String::from_utf8(questions).unwrap();
        assert_eq!(wish.places.len(), 2, "{said}");
        assert_eq!(wish.places[1], (Kind::Gke, "us-central1".into(), "https://b.example.com".into()));
        assert_eq!(wish.objective.as_deref(), Some("800ms"));
        assert!(said.contains("`aks` is none of eks, gke and other"), "{said}");
    }
}
