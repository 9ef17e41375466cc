//! What holds for any records, split and mixed in any way, and for any bytes.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    super::{frame, text::MAX_LINE_BYTES},
    *,
};

/// A record and where it is split.
#[derive(Clone, Debug)]
struct Told {
    text: String,
    userdata: bool,
    splits: Vec<Index>,
}

fn told() -> impl Strategy<Value = Told> {
    let text = "[ -\\[\\]-~]{1,200}";
    (text, any::<bool>(), vec(any::<Index>(), 0..6)).prop_map(|(text, userdata, splits)| Told {
        text,
        userdata,
        splits,
    })
}

/// Datagrams of one record.
fn datagrams(sequence: u64, told: &Told) -> Vec<Vec<u8>> {
    let userdata = if told.userdata { " detector_node=a\n detector_boot=b\n detector_secret=c\n" } else { "" };
    let body = format!("{}\n{userdata}", told.text);
    let head = format!("6.1.0,4,{sequence},{},-", sequence * 10);
    let mut splits: Vec<usize> = told.splits.iter().map(|split| split.index(body.len())).filter(|at| *at > 0).collect();
    splits.sort_unstable();
    splits.dedup();
    if splits.is_empty() {
        return vec![format!("{head};{body}").into_bytes()];
    }
    let begins = std::iter::once(0).chain(splits.iter().copied());
    let ends = splits.iter().copied().chain([body.len()]);
    let pieces = begins.zip(ends);
    pieces.map(|(from, to)| format!("{head},ncfrag={from}/{};{}", body.len(), &body[from..to]).into_bytes()).collect()
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(1_000_000 + ms)
}

/// All lines of `datagrams`, which arrive within one millisecond.
fn lines<'a>(datagrams: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Line> {
    let (mut stream, mut heard) = (Stream::new(), Vec::new());
    for bytes in datagrams {
        stream.push(frame::parse(bytes).expect("a frame"), at(0), &mut heard);
    }
    stream.flush(at(31), &mut heard);
    let line = |heard| match heard {
        Heard::Line(line) => line,
        Heard::Reboot => panic!("one boot"),
    };
    heard.into_iter().map(line).collect()
}

proptest! {
    #[test]
    fn any_split_in_any_order_with_duplicates_gives_the_same_lines(
        records in vec(told(), 1..20),
        order in vec(any::<u32>(), 140),
        again in vec(any::<Index>(), 0..20),
    ) {
        let mut all: Vec<Vec<u8>> = (1..).zip(&records).flat_map(|(sequence, told)| datagrams(sequence, told)).collect();
        for index in &again {
            all.push(index.get(&all).clone());
        }
        let mut keyed: Vec<_> = order.iter().cycle().zip(&all).collect();
        keyed.sort();
        let whole: Vec<_> = records.iter().map(|told| Told { splits: Vec::new(), ..told.clone() }).collect();
        let plain: Vec<_> = (1..).zip(&whole).flat_map(|(sequence, told)| datagrams(sequence, told)).collect();
        let given = lines(keyed.into_iter().map(|(_, bytes)| bytes));
        prop_assert_eq!(&given, &lines(&plain));
        let texts: Vec<_> = given.iter().map(|line| line.text.as_str()).collect();
        prop_assert_eq!(texts, records.iter().map(|told| told.text.as_str()).collect::<Vec<_>>());
    }

    #[test]
    fn a_lost_piece_tears_only_its_line(records in vec(told(), 1..20), lost in any::<Index>()) {
        let all: Vec<(usize, Vec<u8>)> = (0..records.len())
            .flat_map(|index| datagrams(index as u64 + 1, &records[index]).into_iter().map(move |bytes| (index, bytes)))
            .collect();
        let lost = lost.index(all.len());
        let torn = all[lost].0;
        let pieces = all.iter().filter(|(index, _)| *index == torn).count();
        let rest: Vec<_> = all.iter().enumerate().filter(|(at, _)| *at != lost).map(|(_, (_, bytes))| bytes).collect();
        let given = lines(rest);
        for line in &given {
            let index = usize::try_from(line.header.expect("a head").sequence).expect("few") - 1;
            prop_assert_eq!(line.torn, index == torn);
            let text = records[index].text.as_str();
            let told = text.starts_with(&line.text) && (line.torn || text == line.text);
            prop_assert!(told, "{} of {}", line.text, text);
        }
        prop_assert_eq!(given.len(), records.len() - usize::from(pieces == 1));
    }

    #[test]
    fn any_bytes_at_any_time_are_lines_within_bounds(
        datagrams in vec((vec(any::<u8>(), 0..1200), 0_u64..100), 0..60),
        heads in vec((0_u64..80, 0_u64..5_000_000, 0_usize..20_000, 0_usize..1000, 1_usize..900), 0..120),
    ) {
        let (mut stream, mut heard, mut now) = (Stream::new(), Vec::new(), 0);
        let pieces = heads.iter().map(|(sequence, micros, total, offset, length)| {
            let head = format!("4,{sequence},{micros},-,ncfrag={offset}/{total};");
            ([head.as_bytes(), &vec![b'x'; *length]].concat(), sequence % 3)
        });
        for (bytes, wait) in datagrams.iter().cloned().chain(pieces) {
            now += wait;
            if let Ok(frame) = frame::parse(&bytes) {
                stream.push(frame, at(now), &mut heard);
            }
            prop_assert!(stream.bytes() <= 2 * MAX_HELD_BYTES, "{}", stream.bytes());
            prop_assert!(stream.held.len() <= MAX_HELD_RECORDS + 1);
            prop_assert_eq!(stream.held_bytes, stream.held.iter().map(Slot::bytes).sum::<usize>());
        }
        stream.end(&mut heard);
        prop_assert!(stream.due().is_none() && stream.held_bytes == 0);
        for line in &heard {
            if let Heard::Line(line) = line {
                prop_assert!(line.text.len() <= MAX_LINE_BYTES && !line.text.contains(char::is_control));
            }
        }
        let lines = heard.iter().filter(|heard| matches!(heard, Heard::Line(_))).count();
        prop_assert_eq!(stream.counts().lines, lines as u64);
    }
}
