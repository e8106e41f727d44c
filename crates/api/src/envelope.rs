//! The shapes around every successful answer.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

/// `{"success": true, "data": …}`
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Data<T> {
    #[schema(example = true)]
    success: bool,
    data: T,
}

/// `{"success": true, "data": […], "page": {"next": …}}`
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T> {
    #[schema(example = true)]
    success: bool,
    data: Vec<T>,
    page: PageOut,
}

/// `{"success": true, "data": {…}, "page": {"next": …}}`: a page with something beside its rows.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Paged<T> {
    #[schema(example = true)]
    success: bool,
    data: T,
    page: PageOut,
}

/// Where the next page begins.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageOut {
    /// The value of the cursor parameter of the next request; `null` at the end.
    next: Option<String>,
}

/// `{"success": true, "message": …}`
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Done {
    #[schema(example = true)]
    success: bool,
    #[schema(value_type = String)]
    message: &'static str,
}

impl<T> Data<T> {
    pub(crate) fn new(data: T) -> Self {
        Self {
            success: true,
            data,
        }
    }
}

impl<T> List<T> {
    pub(crate) fn new(data: Vec<T>, next: Option<String>) -> Self {
        Self {
            success: true,
            data,
            page: PageOut { next },
        }
    }
}

impl<T> Paged<T> {
    pub(crate) fn new(data: T, next: Option<String>) -> Self {
        Self {
            success: true,
            data,
            page: PageOut { next },
        }
    }
}

impl<T: Serialize> IntoResponse for Paged<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

impl Done {
    pub(crate) fn new(message: &'static str) -> Self {
        Self {
            success: true,
            message,
        }
    }
}

/// An answer with a status other than 200.
pub(crate) fn with_status<T: Serialize>(status: StatusCode, data: T) -> Response {
    (status, Json(Data::new(data))).into_response()
}

impl<T: Serialize> IntoResponse for Data<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

impl<T: Serialize> IntoResponse for List<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}
