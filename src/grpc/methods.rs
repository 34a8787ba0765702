//! The methods that there are.

use prost::Message as _;
use prost_types::FileDescriptorSet;

use crate::proto::DESCRIPTORS;

/// All that is served, each as `package.Service/Method`: what nobody serves is not measured by its name.
pub(super) fn all() -> Vec<String> {
    let sets = [
        DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let files = sets.into_iter().filter_map(|set| FileDescriptorSet::decode(set).ok()).flat_map(|set| set.file);
    let of_file = |file: prost_types::FileDescriptorProto| {
        let package = file.package().to_owned();
        file.service.into_iter().flat_map(move |service| {
            let service_name = format!("{package}.{}", service.name());
            service.method.into_iter().map(move |method| format!("{service_name}/{}", method.name()))
        })
    };
    files.flat_map(of_file).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn those_of_every_service_are_there() {
        let all = super::all();
        for method in [
            "negbank.v1.Sampling/Sample",
            "negbank.v1.Banks/Write",
            "negbank.v1.Gathering/Gather",
            "negbank.v1.Checkpoints/Create",
            "grpc.health.v1.Health/Check",
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ] {
            assert!(all.iter().any(|known| known == method), "{method} in {all:?}");
        }
    }
}
