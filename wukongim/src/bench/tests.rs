//! The command line. Whole runs are in `tests/tools.rs`.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn parse(words: &str) -> Result<Args, clap::Error> {
    Cli::try_parse_from(words.split(' ')).map(|cli| cli.args)
}

#[test]
fn the_command_line_reads_as_it_is_documented() {
    let args = parse("bench --json --seconds 2 send --conns 10 --pipeline 4 --server h:1").unwrap();
    assert!(args.common.json && args.common.server.as_deref() == Some("h:1"));
    assert_eq!(args.common.encryption, Encryption::Auto);
    let args = parse("bench fanout --members 5 --rate 10 --plain").unwrap();
    assert_eq!(args.common.encryption, Encryption::Off);
    assert!(matches!(
        args.scenario.unwrap().steps()[..],
        [Step::Fanout("fanout", 5, Pace::Every(period, 0.0))] if period == 0.1
    ));
    assert!(parse("bench").unwrap().scenario.is_none());
    assert!(parse("bench nothing").is_err());
}
