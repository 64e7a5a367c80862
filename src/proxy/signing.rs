//! Signs requests for AWS (signature version 4). A signature covers the body, so it is there as a whole.

use std::time::SystemTime;

use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningParams, SigningSettings, sign as signature_of},
    sign::v4,
};
use http::{HeaderName, HeaderValue, header};
use pingora_core::{Error, ErrorType, OrErr, Result};
use pingora_http::RequestHeader;

use crate::{model::AwsSigV4, signals::credentials::AwsCredentials};

/// Signs `request`, which goes to `authority` with `body`, in place of whatever signature it has.
///
/// # Errors
/// When it holds what cannot be signed.
pub(super) fn sign(
    request: &mut RequestHeader,
    authority: &str,
    body: &[u8],
    spec: &AwsSigV4,
    credentials: &AwsCredentials,
    now: SystemTime,
) -> Result<()> {
    for stale in ["x-amz-date", "x-amz-security-token", "x-amz-content-sha256"] {
        request.remove_header(stale);
    }
    request.remove_header(&header::AUTHORIZATION);
    let identity = credentials.clone().into();
    let params: SigningParams<'_> = v4::SigningParams::builder()
        .identity(&identity)
        .region(&spec.region)
        .name(&spec.service)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .or_err(ErrorType::InternalError, "the parameters of a signature are not complete")?
        .into();
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = format!("https://{authority}{path}");
    // Proxies on the way may change other headers.
    let signed = request.headers.iter().filter(|(name, _)| {
        *name == header::CONTENT_TYPE || *name == header::HOST || name.as_str().starts_with("x-amz")
    });
    let signed = signed.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let signable = SignableRequest::new(request.method.as_str(), uri, signed, SignableBody::Bytes(body))
        .or_err(ErrorType::InternalError, "a request cannot be signed")?;
    let (instructions, _) = signature_of(signable, &params)
        .or_err(ErrorType::InternalError, "a request cannot be signed")?
        .into_parts();
    let added: Vec<(String, String)> =
        instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for (name, value) in added {
        let name =
            HeaderName::try_from(name).or_err(ErrorType::InternalError, "a signature has an odd header")?;
        let mut value =
            HeaderValue::try_from(value).or_err(ErrorType::InternalError, "a signature has an odd header")?;
        value.set_sensitive(true);
        request.insert_header(name, value)?;
    }
    Ok(())
}

/// The error for a request whose credentials are gone.
pub(super) fn unshown() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "there are no credentials for the backend")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// The example of AWS' test suite for signatures: `post-x-www-form-urlencoded`.
    #[test]
    fn it_signs_as_the_test_suite_of_aws_does() {
        let mut request = RequestHeader::build("POST", b"/", None).unwrap();
        request.insert_header("host", "example.amazonaws.com").unwrap();
        request.insert_header("content-type", "application/x-www-form-urlencoded").unwrap();
        request.insert_header("authorization", "Bearer of the client").unwrap();
        request.insert_header("x-other", "is not signed").unwrap();
        let spec = AwsSigV4 { service: "service".into(), region: "us-east-1".into(), profile: None };
        let credentials = AwsCredentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            None,
            None,
            "test",
        );
        // 2015-08-30T12:36:00Z
        let now = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        sign(&mut request, "example.amazonaws.com", b"Param1=value1", &spec, &credentials, now).unwrap();
        assert_eq!(
            request.headers["authorization"],
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
        );
        assert_eq!(request.headers["x-amz-date"], "20150830T123600Z");
        assert!(request.headers["authorization"].is_sensitive());
    }
}
