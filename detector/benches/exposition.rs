//! Time of a scrape: 250 containers, as a full node of 110 pods has, and the bound of 10,000.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use detector::{
    agent::{
        locate::{Container, ContainerChange, Owner, Place, Pod, Qos, Runtime},
        sink::{
            metric::{Format, Metrics},
            report::Subject,
        },
    },
    config,
};

fn place(number: usize) -> Place {
    let pod = Pod {
        uid: format!("0f3b2c1d-4e5f-4a6b-8c7d-{number:012}"),
        qos: Qos::Burstable,
        level: 3,
        namespace: Some(format!("team-{}", number % 20)),
        name: Some(format!("checkout-7d9c6b5f4-x{number:05}")),
    };
    let container = Container {
        runtime: Runtime::Containerd,
        id: format!("{number:064}"),
        level: 4,
        name: Some("application".to_owned()),
        init_pid: None,
        pod: Some(pod),
    };
    Place { path: "/kubepods".into(), owner: Owner::Container(container) }
}

/// Containers, a tenth of which had kills.
fn metrics(containers: usize) -> Metrics {
    let mut metrics = Metrics::new(&config::Metrics::default());
    for number in 0..containers {
        let place = place(number);
        metrics.container(&ContainerChange::Seen(Arc::new(place.clone())), 1);
        if number % 10 == 0 {
            metrics.missed(&Subject::of(Some(&place)), 3, 1);
        }
    }
    metrics
}

fn scrape(criterion: &mut Criterion) {
    for containers in [250, 10_000] {
        let metrics = metrics(containers);
        for (name, format) in [("openmetrics", Format::OpenMetrics), ("prometheus", Format::Prometheus)] {
            let exposition = metrics.exposition();
            criterion.bench_function(&format!("scrape/{name}/{containers}"), |bencher| {
                bencher.iter(|| black_box(exposition.encode(format)));
            });
        }
        criterion.bench_function(&format!("snapshot/{containers}"), |bencher| {
            bencher.iter(|| black_box(metrics.snapshot(2)));
        });
    }
}

criterion_group!(benches, scrape);
criterion_main!(benches);
