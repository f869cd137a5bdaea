//! The API's documentation: an OpenAPI document and one self-contained page, both from the table of routes.

use hyper::Method;

use super::json::Json;
use super::routes::{ROUTES, Route};

/// Writes the OpenAPI 3.0 document.
pub(super) fn openapi(json: &mut Json, version: &str) {
    json.object(|o| {
        o.key("openapi").text("3.0.3");
        o.key("info").object(|i| {
            i.key("title")
                .text("WuKongIM API")
                .key("version")
                .text(version);
        });
        o.key("paths").object(|paths| {
            for (at, route) in ROUTES.iter().enumerate() {
                // A path with two methods is one member; the table keeps its rows together.
                if ROUTES[..at].iter().any(|r| r.path == route.path) {
                    continue;
                }
                let same_path = ROUTES.iter().filter(|r| r.path == route.path);
                paths.key(route.path).object(|p| {
                    for route in same_path {
                        let method = if route.method == Method::GET {
                            "get"
                        } else {
                            "post"
                        };
                        p.key(method).object(|op| operation(op, route));
                    }
                });
            }
        });
    });
}

fn operation(op: &mut Json, route: &Route) {
    op.key("tags").texts([route.tag]);
    op.key("summary").text(route.summary);
    if route.method == Method::GET {
        op.key("parameters").array(|list| {
            for name in path_parameters(route.path) {
                parameter(list, name, "path", "string");
            }
            for (name, kind) in members(route.input) {
                parameter(list, name, "query", kind);
            }
        });
    } else {
        op.key("requestBody").object(|b| {
            b.key("content").object(|c| {
                c.key("application/json").object(|m| {
                    m.key("schema").object(|s| body_schema(s, route.input));
                });
            });
        });
    }
    op.key("responses").object(|r| {
        for (code, text) in [
            ("200", "Done"),
            ("400", "The request is wrong; msg says why"),
            ("401", "The token is missing or wrong"),
            ("503", "The state is not available now"),
        ] {
            r.key(code).object(|o| {
                o.key("description").text(text);
            });
        }
    });
}

fn parameter(list: &mut Json, name: &str, place: &str, kind: &str) {
    list.object(|p| {
        p.key("name").text(name).key("in").text(place);
        p.key("required").bool(place == "path");
        p.key("schema").object(|s| schema(s, kind));
    });
}

fn body_schema(s: &mut Json, input: &str) {
    if let Some(kind) = input.strip_prefix('[') {
        s.key("type").text("array");
        s.key("items")
            .object(|i| schema(i, kind.trim_end_matches(']')));
        return;
    }
    s.key("type").text("object");
    s.key("properties").object(|p| {
        for (name, kind) in members(input) {
            p.key(name).object(|s| schema(s, kind));
        }
    });
}

fn schema(s: &mut Json, kind: &str) {
    if let Some(item) = kind.strip_suffix("[]") {
        s.key("type").text("array");
        s.key("items").object(|i| schema(i, item));
    } else if kind == "bytes" {
        s.key("type").text("string").key("format").text("byte");
    } else {
        s.key("type").text(kind);
    }
}

fn members(input: &str) -> impl Iterator<Item = (&str, &str)> {
    input.split(' ').filter_map(|member| member.split_once(':'))
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// The page: no scripts and nothing from elsewhere, so it works without a network.
pub(super) fn page() -> String {
    let mut html = String::from(HEAD);
    let mut tag = "";
    for route in ROUTES {
        if route.tag != tag {
            tag = route.tag;
            html.push_str(&format!("<h2>{tag}</h2>\n"));
        }
        html.push_str(&format!(
            "<details><summary><b>{}</b> <code>{}</code> {}</summary><ul>\n",
            route.method, route.path, route.summary
        ));
        for (name, kind) in members(route.input) {
            html.push_str(&format!("<li><code>{name}</code> {kind}</li>\n"));
        }
        html.push_str("</ul></details>\n");
    }
    html.push_str("</body></html>\n");
    html
}

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>WuKongIM API</title>\n\
    <style>body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}\
    summary{cursor:pointer;padding:.3em 0}code{background:#8882;padding:.1em .3em;border-radius:3px}</style>\n\
    </head><body><h1>WuKongIM API</h1>\n<p>Machine-readable: <a href=\"/docs/openapi.json\">/docs/openapi.json</a></p>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_knows_every_route() {
        let mut json = Json::default();
        openapi(&mut json, "1");
        let document: serde_json::Value = serde_json::from_slice(&json.into_bytes()).unwrap();
        for route in ROUTES {
            let method = route.method.as_str().to_lowercase();
            let operation = &document["paths"][route.path][&method];
            assert_eq!(operation["summary"], route.summary, "{}", route.path);
        }
        let send = &document["paths"]["/message/send"]["post"]["requestBody"];
        let schema = &send["content"]["application/json"]["schema"]["properties"];
        assert_eq!(schema["payload"]["format"], "byte");
        assert_eq!(schema["subscribers"]["items"]["type"], "string");
    }

    #[test]
    fn every_input_is_understood() {
        let known = [
            "string",
            "integer",
            "bytes",
            "object",
            "string[]",
            "integer[]",
            "object[]",
        ];
        for route in ROUTES.iter().filter(|r| !r.input.starts_with('[')) {
            let words = route.input.split(' ').filter(|w| !w.is_empty()).count();
            assert_eq!(members(route.input).count(), words, "{}", route.path);
            for (_, kind) in members(route.input) {
                assert!(known.contains(&kind), "{} {kind}", route.path);
            }
        }
    }
}
