//! Flagger's query templates: text with `{{ name }}` in it.
//!
//! Flagger takes any Go template. What people write there are variables, and these are taken; loops and conditions would
//! need Go's engine, and are refused by name.

use std::collections::BTreeMap;

/// A template that can be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(Variable),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Variable {
    Name,
    Namespace,
    Target,
    Service,
    Ingress,
    Route,
    Interval,
    /// `variables.KEY`
    Custom(String),
}

/// What variables stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Values {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) target: String,
    pub(super) service: String,
    pub(super) ingress: String,
    pub(super) route: String,
    pub(super) interval: String,
    pub(super) custom: BTreeMap<String, String>,
}

impl Template {
    /// Reads a template, or says everything that is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<String>> {
        let (mut pieces, mut wrong) = (Vec::new(), Vec::new());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            pieces.push(Piece::Text(before.to_owned()));
            let Some((inside, after)) = after.split_once("}}") else {
                wrong.push("has {{ without }}, close it".to_owned());
                return Err(wrong);
            };
            match Variable::parse(inside.trim()) {
                Some(variable) => pieces.push(Piece::Variable(variable)),
                None => wrong.push(format!(
                    "holds {{{{{inside}}}}}, of Go's templates only {{{{ name }}}}, namespace, target, service, ingress, \
                     route, interval and variables.KEY are carried out"
                )),
            }
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        if wrong.is_empty() { Ok(Self(pieces)) } else { Err(wrong) }
    }

    /// Returns the keys of `variables` that it needs.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Variable(Variable::Custom(key)) => Some(key.as_str()),
            Piece::Variable(
                Variable::Name
                | Variable::Namespace
                | Variable::Target
                | Variable::Service
                | Variable::Ingress
                | Variable::Route
                | Variable::Interval,
            )
            | Piece::Text(_) => None,
        })
    }

    /// Returns the text with values in place of variables, on one line as Flagger sends it. A key that is not there
    /// stands for nothing.
    pub(super) fn render(&self, values: &Values) -> String {
        let text: String = self
            .0
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text,
                Piece::Variable(Variable::Name) => &values.name,
                Piece::Variable(Variable::Namespace) => &values.namespace,
                Piece::Variable(Variable::Target) => &values.target,
                Piece::Variable(Variable::Service) => &values.service,
                Piece::Variable(Variable::Ingress) => &values.ingress,
                Piece::Variable(Variable::Route) => &values.route,
                Piece::Variable(Variable::Interval) => &values.interval,
                Piece::Variable(Variable::Custom(key)) => values.custom.get(key).map_or("", String::as_str),
            })
            .collect();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Variable {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "name" => Some(Self::Name),
            "namespace" => Some(Self::Namespace),
            "target" => Some(Self::Target),
            "service" => Some(Self::Service),
            "ingress" => Some(Self::Ingress),
            "route" => Some(Self::Route),
            "interval" => Some(Self::Interval),
            _ => {
                let key = text.strip_prefix("variables.")?;
                let good = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                good.then(|| Self::Custom(key.to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_stand_for_their_values() {
        let template = Template::parse(
            "sum(rate(x{ns=\"{{ namespace }}\",w=~\"{{target}}-primary\"}[{{ interval }}]))\n  > {{ variables.least }}{{name}}",
        )
        .unwrap();
        assert_eq!(template.keys().collect::<Vec<_>>(), ["least"]);
        let values = Values {
            name: "n".into(),
            namespace: "prod".into(),
            target: "t".into(),
            interval: "1m".into(),
            custom: BTreeMap::from([("least".into(), "5".into())]),
            ..Values::default()
        };
        assert_eq!(template.render(&values), "sum(rate(x{ns=\"prod\",w=~\"t-primary\"}[1m])) > 5n");
    }

    #[test]
    fn what_would_need_gos_engine_is_told() {
        let wrong = Template::parse("{{ if x }}a{{ end }}{{- name }}{{ variables.a-b }}{{ index variables \"a\" }}")
            .unwrap_err();
        assert_eq!(wrong.len(), 5);
        assert!(wrong[0].starts_with("holds {{ if x }}, of Go's templates only {{ name }}, namespace"), "{wrong:?}");
        assert_eq!(Template::parse("a{{ name").unwrap_err(), ["has {{ without }}, close it"]);
    }
}
