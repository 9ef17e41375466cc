//! Reads what a program shows at `/metrics`, in Prometheus's text format.

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Largest answer that is read, in bytes.
const LARGEST: u64 = 16 << 20;

/// All samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the metric.
    pub name: String,
    /// Labels in their order.
    pub labels: Vec<(String, String)>,
    /// Value.
    pub value: f64,
}

impl Metrics {
    /// Scrapes a port of this machine.
    ///
    /// # Errors
    /// Nobody answers, or not with 200, or with something else than metrics.
    pub async fn scrape(port: u16) -> Result<Self> {
        Self::parse(&get(port, "/metrics").await?)
    }

    /// Understands the text format.
    ///
    /// # Errors
    /// A line that is neither empty, a comment nor a sample.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| sample(line).with_context(|| format!("not a sample: {line}")));
        Ok(Self { samples: samples.collect::<Result<_>>()? })
    }

    /// Samples of this name whose labels contain all of `labels`.
    pub fn find<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name && sample.has(labels))
    }

    /// The one sample of this name with these labels, if there is exactly one.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.find(name, labels);
        let value = found.next()?.value;
        found.next().is_none().then_some(value)
    }

    /// Sum over all samples of this name with these labels; zero if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).map(|sample| sample.value).sum()
    }

    /// All samples.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }
}

impl Sample {
    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.labels.iter().any(|(key, own)| key == name && own == value))
    }
}

/// The body of a page of a port of this machine.
///
/// # Errors
/// Nobody answers, or not with 200.
pub async fn get(port: u16, path: &str) -> Result<String> {
    let attempt = format!("get http://127.0.0.1:{port}{path}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.with_context(|| attempt.clone())?;
    // HTTP/1.0: the answer is in one piece and ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.with_context(|| attempt.clone())?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).await.with_context(|| attempt.clone())?;
    let answer = String::from_utf8(answer).with_context(|| attempt.clone())?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{attempt}: answered {answer:?}"))?;
    let code = head.split_whitespace().nth(1);
    ensure!(code == Some("200"), "{attempt}: answered {}: {body}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}

/// `name{label="value",…} value`
fn sample(line: &str) -> Option<Sample> {
    let Some((name, rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ')?;
        return Some(Sample { name: name.to_owned(), labels: Vec::new(), value: number(value)? });
    };
    let mut labels = Vec::new();
    let mut rest = rest;
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(value) = rest.strip_prefix('}') {
            return Some(Sample { name: name.to_owned(), labels, value: number(value.trim_start())? });
        }
        let (label, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquoted(quoted)?;
        labels.push((label.to_owned(), value));
        rest = after;
    }
}

/// The number; a time may follow it.
fn number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

/// A label's value up to its closing quote, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# HELP a b\na 1\nb_total{x=\"1\",y=\"a \\\"b\\\" }\"} 2.5\nb_total{x=\"2\",y=\"c\"} 4 1700000000\nc{} +Inf\n";

    #[test]
    fn samples_are_found_by_some_of_their_labels() {
        let metrics = Metrics::parse(TEXT).unwrap();
        assert_eq!(metrics.value("a", &[]), Some(1.0));
        assert_eq!(metrics.value("b_total", &[("x", "1")]), Some(2.5));
        assert_eq!(metrics.value("b_total", &[]), None, "two samples are no value");
        assert_eq!(metrics.sum("b_total", &[]), 6.5);
        assert_eq!(metrics.find("b_total", &[("y", "a \"b\" }")]).count(), 1);
        assert_eq!(metrics.value("c", &[]), Some(f64::INFINITY));
    }

    #[test]
    fn what_is_no_sample_is_an_error() {
        assert!(Metrics::parse("<html>").is_err());
        assert!(Metrics::parse("a{b=\"c} 1").is_err());
    }
}
